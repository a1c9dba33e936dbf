// An Express application that knows nothing of Redis or of session IDs: it reads the user from a request header and
// writes the session by a response header.
const express = require('express');

const app = express();
app.use(express.urlencoded({ extended: false }));

// writeSession asks Tandem for a change. Headers are Latin-1 here: what is beyond ASCII is escaped.
function writeSession(res, change) {
  const json = JSON.stringify(change);
  res.set('X-Tandem-Session-Set', json.replace(/[\u007f-\uffff]/g, c => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0')));
}

app.get('/app/me', (req, res) => {
  res.json({
    user: req.get('X-Tandem-User') ?? null,
    name: decodeURIComponent(req.get('X-Tandem-User-Name') ?? ''),
    session: req.get('X-Tandem-Session') ?? null,
    headers: req.rawHeaders.join('\n'),
  });
});
app.post('/app/cart', (req, res) => {
  writeSession(res, { set: { cart: [req.body.item] } });
  res.send('in the cart');
});
app.post('/app/login', (req, res) => {
  writeSession(res, { set: { 'user.id': 'app-' + req.body.name, 'user.name': req.body.name } });
  res.redirect(303, '/app/me');
});
app.post('/app/name', (req, res) => {
  writeSession(res, { set: { 'chat.name': req.body.name } });
  res.send('renamed');
});
app.post('/app/logout', (req, res) => {
  writeSession(res, { delete: ['user.id'] });
  res.redirect(303, '/');
});

app.listen(Number(process.env.PORT), '127.0.0.1');
