<?php
// The same as express/app.js, for php -S.

function write_session(array $change): void
{
    header('X-Tandem-Session-Set: ' . json_encode($change));
}

switch ($_SERVER['REQUEST_METHOD'] . ' ' . parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)) {
    case 'GET /app/me':
        header('Content-Type: application/json');
        echo json_encode([
            'user' => $_SERVER['HTTP_X_TANDEM_USER'] ?? null,
            'name' => rawurldecode($_SERVER['HTTP_X_TANDEM_USER_NAME'] ?? ''),
            'session' => $_SERVER['HTTP_X_TANDEM_SESSION'] ?? null,
            'headers' => implode("\n", array_filter($_SERVER, 'is_string')),
        ]);
        break;
    case 'POST /app/cart':
        write_session(['set' => ['cart' => [$_POST['item']]]]);
        echo 'in the cart';
        break;
    case 'POST /app/login':
        write_session(['set' => ['user.id' => 'app-' . $_POST['name'], 'user.name' => $_POST['name']]]);
        header('Location: /app/me', true, 303);
        break;
    case 'POST /app/name':
        write_session(['set' => ['chat.name' => $_POST['name']]]);
        echo 'renamed';
        break;
    case 'POST /app/logout':
        write_session(['delete' => ['user.id']]);
        header('Location: /', true, 303);
        break;
    default:
        http_response_code(404);
}
