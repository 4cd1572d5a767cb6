"""An HTTP/1.1 origin that misbehaves on demand, and a TCP service; the standard library only.

Written on sockets and not on a server library, so that every byte that goes out is chosen here. The first part of the
path says what happens, see BEHAVIOURS. Prints `ready` when it listens; runs until it is ended.

    origin.py NAME HTTP-PORT TCP-PORT
"""

import asyncio
import fcntl
import hashlib
import json
import random
import resource
import socket
import struct
import sys
import termios

MEBI = 1 << 20
FOREVER = 1e9
BLOCK = random.Random(20).randbytes(MEBI)
SEEN = []
CONNECTIONS = 0


def pieces(length):
    """The bytes of a body of this length."""
    while length > 0:
        piece = BLOCK[:length]
        length -= len(piece)
        yield piece


def digest_of(length):
    digest = hashlib.sha256()
    for piece in pieces(length):
        digest.update(piece)
    return digest.hexdigest()


def reset(writer):
    """Ends a connection with a RST: what was sent and not yet acknowledged may be lost."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def acknowledged(writer):
    """Waits until the peer's kernel, or who stands for it, has all that was sent."""
    ours = writer.get_extra_info("socket").fileno()
    while struct.unpack("i", fcntl.ioctl(ours, termios.TIOCOUTQ, b"    "))[0]:
        await asyncio.sleep(0.001)


class Request:
    """A request whose head is read; the body is read when somebody asks."""

    def __init__(self, reader, writer, head):
        self.reader, self.writer = reader, writer
        line, *fields = head.decode("latin-1").split("\r\n")
        self.method, self.target, self.version = line.split(" ")
        self.fields = [field.split(":", 1) for field in fields if field]
        self.fields = [[name, value.strip()] for name, value in self.fields]
        self.trailers = []
        self.length = 0
        self.digest = hashlib.sha256()

    def field(self, wanted):
        values = [value for name, value in self.fields if name.lower() == wanted]
        return ", ".join(values)

    def is_last(self):
        return self.version == "HTTP/1.0" or "close" in self.field("connection").lower()

    async def read_body(self):
        if self.field("expect").lower() == "100-continue":
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.field("transfer-encoding").lower() == "chunked":
            await self.read_chunks()
        elif self.field("content-length"):
            await self.read_exactly(int(self.field("content-length")))

    async def read_exactly(self, left):
        while left > 0:
            piece = await self.reader.read(min(left, MEBI))
            if not piece:
                raise ConnectionError("the body ends early")
            left -= len(piece)
            self.length += len(piece)
            self.digest.update(piece)

    async def read_chunks(self):
        while size := int((await self.reader.readline()).split(b";")[0], 16):
            await self.read_exactly(size)
            await self.reader.readline()
        while line := (await self.reader.readline()).strip():
            name, value = line.decode("latin-1").split(":", 1)
            self.trailers.append([name, value.strip()])

    def describe(self):
        return {
            "name": NAME,
            "method": self.method,
            "target": self.target,
            "version": self.version,
            "headers": self.fields,
            "trailers": self.trailers,
            "length": self.length,
            "sha256": self.digest.hexdigest(),
            "peer": self.writer.get_extra_info("peername")[0],
        }

    def lines(self, status, *fields):
        lines = [f"HTTP/1.1 {status}", f"X-Origin: {NAME}", *fields]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def head(self, status, *fields):
        self.writer.write(self.lines(status, *fields))

    async def answer(self, status, body, *fields):
        head = self.lines(status, f"Content-Length: {len(body)}", *fields)
        # In one piece: a kernel that must reset throws away what waits for the piece before.
        await self.send([head if self.method == "HEAD" else head + body])

    async def send(self, bodies):
        for body in bodies:
            self.writer.write(body)
            await self.writer.drain()


async def echo(request, _):
    """What the origin received, as JSON."""
    await request.read_body()
    text = json.dumps(request.describe()).encode()
    await request.answer("200 OK", text, "Content-Type: application/json")


async def seen(request, _):
    """What echo answered so far, and how many connections there were."""
    await request.answer("200 OK", json.dumps({"seen": SEEN, "connections": CONNECTIONS}).encode())


async def status(request, words):
    """An answer with this status."""
    await request.read_body()
    fields = ("X-Own: origin", "Server: origin")
    if words[0] in ("204", "304"):
        return request.head(f"{words[0]} As Asked", *fields)
    await request.answer(f"{words[0]} As Asked", b"as asked\n", *fields)


async def body_of(request, words):
    """So many bytes, their length said."""
    length = int(words[0])
    request.head("200 OK", f"Content-Length: {length}", f"X-Sha256: {digest_of(length)}")
    await request.send([] if request.method == "HEAD" else pieces(length))


async def chunked(request, words):
    """So many bytes in chunks; with `?trailer` in the target, and a trailer."""
    length = int(words[0])
    request.head("200 OK", "Transfer-Encoding: chunked", f"X-Sha256: {digest_of(length)}")
    if request.method != "HEAD":
        await request.send(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces(length))
        trailer = "X-Trailer: there\r\n" if "?trailer" in request.target else ""
        await request.send([f"0\r\n{trailer}\r\n".encode()])


async def until_close(request, words):
    """So many bytes, and the end of the connection says that they are all."""
    length = int(words[0])
    request.head("200 OK", f"X-Sha256: {digest_of(length)}")
    await request.send(pieces(length))
    return True


async def drip(request, words):
    """So many bytes, one in 5 ms."""
    request.head("200 OK", f"Content-Length: {words[0]}")
    for _ in range(int(words[0])):
        await request.send([b"."])
        await asyncio.sleep(0.005)


async def truncate(request, _):
    """Less than the length says."""
    request.head("200 OK", "Content-Length: 1000")
    await request.send([b"x" * 500])
    return True


async def early_truncate(request, _):
    """Less than the length says, before the body of the request is read."""
    request.head("200 OK", "Content-Length: 1000")
    await acknowledged(request.writer)
    return True


async def truncate_chunk(request, _):
    """A chunk without its end."""
    request.head("200 OK", "Transfer-Encoding: chunked")
    await request.send([b"100\r\nhalf of it"])
    return True


async def reset_body(request, _):
    """A RST in the middle of the body."""
    request.head("200 OK", "Content-Length: 200000")
    await request.send([BLOCK[:100000]])
    await acknowledged(request.writer)
    reset(request.writer)
    return True


async def reset_head(request, _):
    """A RST in place of an answer."""
    reset(request.writer)
    return True


async def close_head(request, _):
    """The end in place of an answer."""
    return True


async def garbage(request, _):
    """An answer that is no HTTP."""
    await request.send([b"220 mail.example.com ESMTP\r\n\r\n"])
    return True


async def early(request, _):
    """An answer before the body is read, and the end."""
    await request.answer("413 Content Too Large", b"too large\n", "Connection: close")
    return True


async def refuse(request, _):
    """An answer in place of 100 Continue."""
    await request.answer("417 Expectation Failed", b"no\n", "Connection: close")
    return True


async def stall(request, _):
    """No answer."""
    await request.reader.read()
    return True


async def deaf(request, _):
    """Neither an answer nor anything read."""
    request.writer.transport.pause_reading()
    await asyncio.sleep(FOREVER)


async def interim(request, _):
    """103 first."""
    request.writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
    await request.answer("200 OK", b"after hints\n")


async def last(request, _):
    """An answer that says it is the connection's last."""
    await request.read_body()
    await request.answer("200 OK", b"last\n", "Connection: close")
    return True


async def own_cookie(request, words):
    """An answer with the cookie of this name that names this member, as BIG-IP writes it, where the request has none."""
    await request.read_body()
    value = own_cookie_value(*request.writer.get_extra_info("sockname")[:2])
    named = f"{words[0]}=" in request.field("cookie")
    await request.answer("200 OK", f"{NAME}\n".encode(), *([] if named else [f"Set-Cookie: {words[0]}={value}; Path=/"]))


def own_cookie_value(host, port):
    """Address and port with their bytes reversed, as decimals; an IPv6 address in hexadecimal digits."""
    address = socket.inet_pton(socket.AF_INET6, host)
    port = int.from_bytes(struct.pack("<H", port), "big")
    if host.startswith("::ffff:"):
        return f"{int.from_bytes(address[12:], 'little')}.{port}.0000"
    return f"vi{address.hex()}.{port}"


async def session(request, words):
    """An answer that names the session of this number, as an application does that shares sessions with nobody."""
    await request.read_body()
    await request.answer("200 OK", f"{NAME}\n".encode(), f"Set-Cookie: sid={words[0]}; Path=/; HttpOnly")


async def upgrade(request, _):
    """Another protocol: what comes goes back."""
    request.head("101 Switching Protocols", "Connection: upgrade", "Upgrade: echo")
    await echo_bytes(request.reader, request.writer)
    return True


BEHAVIOURS = {
    "echo": echo,
    "seen": seen,
    "status": status,
    "bytes": body_of,
    "chunked": chunked,
    "until-close": until_close,
    "drip": drip,
    "truncate": truncate,
    "early-truncate": early_truncate,
    "truncate-chunk": truncate_chunk,
    "reset-body": reset_body,
    "reset-head": reset_head,
    "close-head": close_head,
    "garbage": garbage,
    "early": early,
    "refuse": refuse,
    "stall": stall,
    "deaf": deaf,
    "interim": interim,
    "last": last,
    "own-cookie": own_cookie,
    "session": session,
    "upgrade": upgrade,
}


async def echo_bytes(reader, writer):
    while piece := await reader.read(MEBI):
        writer.write(piece)
        await writer.drain()


async def serve_http(reader, writer):
    global CONNECTIONS
    CONNECTIONS += 1
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        request = Request(reader, writer, head[:-4])
        _, first, *words = request.target.split("?")[0].split("/")
        if first != "seen":
            SEEN.append([request.method, request.target, request.fields])
        if await BEHAVIOURS.get(first, echo)(request, words) or request.is_last():
            return
        await writer.drain()


async def serve_tcp(reader, writer):
    """The first line says what to do."""
    verb, *words = (await reader.readline()).decode().split()
    if verb == "echo":
        await echo_bytes(reader, writer)
    elif verb == "bytes":
        for piece in pieces(int(words[0])):
            writer.write(piece)
            await writer.drain()
    elif verb == "digest":
        digest = hashlib.sha256()
        while piece := await reader.read(MEBI):
            digest.update(piece)
        writer.write(f"{digest.hexdigest()}\n".encode())
    elif verb == "close-first":
        # Says what came after its own end: to whom asks on another connection.
        writer.write_eof()
        digest = hashlib.sha256()
        while piece := await reader.read(MEBI):
            digest.update(piece)
        ENDINGS.put_nowait(digest.hexdigest())
    elif verb == "reset":
        reset(writer)
    elif verb == "watch":
        # Says how the connection ended: to whom asks on another one.
        writer.write(b"watching\n")
        try:
            ending = "end" if await reader.read() == b"" else "bytes"
        except ConnectionResetError:
            ending = "reset"
        ENDINGS.put_nowait(ending)
    elif verb == "ending":
        writer.write(f"{await ENDINGS.get()}\n".encode())
    elif verb == "deaf":
        writer.transport.pause_reading()
        await asyncio.sleep(FOREVER)


def guarded(serve):
    """A service whose peers may go at any time."""

    async def run(reader, writer):
        try:
            await serve(reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass
        writer.close()

    return run


async def main():
    global ENDINGS
    ENDINGS = asyncio.Queue()
    for port, serve in ((HTTP_PORT, serve_http), (TCP_PORT, serve_tcp)):
        listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
        await asyncio.start_server(guarded(serve), sock=listener, limit=MEBI, backlog=4096)
    print("ready", flush=True)
    await asyncio.sleep(FOREVER)


if __name__ == "__main__":
    NAME, HTTP_PORT, TCP_PORT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main())
