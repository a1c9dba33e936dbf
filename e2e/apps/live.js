// A Node server without packages: events at /live/events, an echoing WebSocket (RFC 6455, short text frames) elsewhere.
const http = require('node:http');
const { createHash } = require('node:crypto');

const server = http.createServer((req, res) => {
  if (req.url !== '/live/events') {
    res.writeEarlyHints({ link: '</style.css>; rel=preload' });
    res.end(`${req.method} ${req.headers['x-tandem-user-name'] ?? '-'}`);
    return;
  }
  res.writeHead(200, { 'Content-Type': 'text/event-stream' });
  res.write(`data: hello ${req.headers['x-tandem-user-name']}\n\n`);
  res.on('close', () => console.log('events: left'));
});

server.on('upgrade', (req, socket) => {
  if (req.url === '/live/refused') {
    socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno');
    return;
  }
  const accept = createHash('sha1').update(req.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
  socket.on('error', () => {});
  let data = Buffer.alloc(0);
  socket.on('data', piece => {
    data = Buffer.concat([data, piece]);
    while (data.length >= 6 && data.length >= 6 + (data[1] & 0x7f)) {
      const length = data[1] & 0x7f, mask = data.subarray(2, 6);
      const text = Buffer.from(data.subarray(6, 6 + length).map((b, i) => b ^ mask[i % 4]));
      socket.write(Buffer.concat([Buffer.from([data[0], length]), text]));
      if ((data[0] & 0x0f) === 8) socket.end();
      data = data.subarray(6 + length);
    }
  });
});

server.listen(Number(process.env.PORT), '127.0.0.1');
