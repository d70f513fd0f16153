/* A sender of the pixferry native protocol, version 1, over TCP, written from
 * SPEC.md: sends one file and ends with 0 when the receiver has kept it.
 *
 *     cc -std=c99 -Wall -Wextra -O2 -o sender sender.c
 *     ./sender HOST PORT FILE
 *
 * Memory is 27 KB whatever the size of the file: 8 for the message that is built,
 * 2 for one that is read, 16 for the state of 1,024 messages in flight. Exit codes: 0 kept,
 * 1 failed or unknown, 2 usage, 3 rejected for good, 4 rejected for now. */
#define _POSIX_C_SOURCE 200112L
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, OUT_MAX = 8192, IN_MAX = 2048, RING = 1024, IDLE_S = 30, HANDLE = 1, ATTEMPT = 1 };
enum { T_PADDING, T_DATA, T_ACK, T_HELLO, T_OFFER, T_ACCEPT, T_RESUME, T_FIN, T_RECEIPT, T_REJECT, T_CANCEL,
       T_PING, T_CLOSE };
enum { C_DONE, C_INTERNAL, C_IDLE = 3, C_CHECKSUM = 7, C_TRUNCATED, C_MALFORMED, C_UNKNOWN, C_LIMIT, C_STATE };
enum { SHA256 = 2, KEPT = 3 };

/* ---- SHA-256 (FIPS 180-4) and CRC32C (SPEC 2) ---- */

typedef struct { uint32_t h[8]; uint64_t n; uint8_t block[64]; } sha;

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t ror(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha_init(sha *s)
{
    static const uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(s->h, h, sizeof h);
    s->n = 0;
}

static void sha_block(sha *s)
{
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)s->block[4 * i] << 24 | (uint32_t)s->block[4 * i + 1] << 16 | (uint32_t)s->block[4 * i + 2] << 8 | s->block[4 * i + 3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + w[i - 7] + (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) +
               (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(v, s->h, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t a = v[7] + (ror(v[4], 6) ^ ror(v[4], 11) ^ ror(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) + K[i] + w[i];
        uint32_t b = (ror(v[0], 2) ^ ror(v[0], 13) ^ ror(v[0], 22)) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += a;
        v[0] = a + b;
    }
    for (int i = 0; i < 8; i++) s->h[i] += v[i];
}

static void sha_add(sha *s, const uint8_t *p, size_t n)
{
    while (n--) {
        s->block[s->n++ % 64] = *p++;
        if (s->n % 64 == 0) sha_block(s);
    }
}

static void sha_end(sha *s, uint8_t out[32])
{
    uint64_t bits = s->n * 8;
    uint8_t b = 0x80;
    for (sha_add(s, &b, 1), b = 0; s->n % 64 != 56;) sha_add(s, &b, 1);
    for (int i = 7; i >= 0; i--) b = (uint8_t)(bits >> 8 * i), sha_add(s, &b, 1);
    for (int i = 0; i < 32; i++) out[i] = (uint8_t)(s->h[i / 4] >> (24 - 8 * (i % 4)));
}

static uint32_t crc32c(const uint8_t *p, size_t n)
{
    static uint32_t table[256];
    uint32_t crc = 0xffffffff;
    for (uint32_t i = 0; !table[255] && i < 256; i++) {
        table[i] = i;
        for (int k = 0; k < 8; k++) table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0x82f63b78 : 0);
    }
    while (n--) crc = crc >> 8 ^ table[(crc ^ *p++) & 0xff];
    return ~crc;
}

/* ---- The session ---- */

static struct {
    int fd;
    uint8_t local[8], remote[8], id[16], root[32]; /* connection IDs, transfer ID, digest */
    uint64_t size;                                 /* of the file */
    uint8_t out[4 + OUT_MAX], in[IN_MAX];
    size_t out_n;
    uint32_t sent, received;    /* messages so far, which are the next packet numbers */
    uint32_t acked;             /* our messages that the peer has */
    uint64_t data, data_acked;  /* bytes of payload sent and acknowledged */
    uint32_t messages, messages_acked, window, window_messages, max_message;
    struct { uint64_t data; uint32_t messages; } after[RING]; /* data and messages with DATA after message i % RING */
    int established, hello, ack_due, fin_sent;
} S;

static void put(uint8_t *p, uint64_t v, int n) { for (int i = 0; i < n; i++) p[i] = (uint8_t)(v >> 8 * i); }

static uint64_t get(const uint8_t *p, int n)
{
    uint64_t v = 0;
    while (n--) v = v << 8 | p[n];
    return v;
}

static void add(uint64_t v, int n) { put(S.out + S.out_n, v, n), S.out_n += (size_t)n; }
static void add_bytes(const void *p, size_t n) { memcpy(S.out + S.out_n, p, n), S.out_n += n; }
static void add_frame(int type, size_t n) { add((uint64_t)type, 1), add(n, 2); }

/* Writes all, or ends the program: the link is the session. */
static void write_all(const uint8_t *p, size_t n)
{
    while (n > 0) {
        ssize_t k = send(S.fd, p, n, 0);
        if (k < 0 && errno != EINTR) perror("sending"), exit(1);
        if (k > 0) p += k, n -= (size_t)k;
    }
}

/* Begins a message: length 4, flags 1, destination 8, number 4, and of a long one
 * version 1 and source 8 (SPEC 2 and 13). An ACK that is due rides along. */
static void begin(void)
{
    S.out_n = 4;
    add(S.established ? 0 : 0x80, 1), add_bytes(S.remote, 8), add(S.sent, 4);
    if (!S.established) add(1, 1), add_bytes(S.local, 8);
    if (S.ack_due) { /* one range from 0; no credit, as we receive nothing (SPEC 6) */
        uint32_t n = S.received;
        int length = 1;
        for (uint32_t v = n; v > 127; v >>= 7) length++;
        add_frame(T_ACK, 13 + (size_t)length);
        add(n - 1, 4), add(0, 2), add(0, 4), add(0, 2), add(0, 1);
        for (; n > 127; n >>= 7) add((n & 127) | 128, 1);
        add(n, 1);
        S.ack_due = 0;
    }
}

/* Ends a message, whose last payload bytes are those of DATA: over TCP the CRC is of what is before them (SPEC 2). */
static void finish_data(size_t payload)
{
    add(crc32c(S.out + 4, S.out_n - 4 - payload), 4);
    put(S.out, S.out_n - 4, 4);
    S.after[S.sent % RING].data = S.data;
    S.after[S.sent++ % RING].messages = S.messages;
    write_all(S.out, S.out_n);
}

static void finish(void) { finish_data(0); }

static void bye(int code, const char *text)
{
    struct timeval second = {1, 0};
    begin(), add_frame(T_CLOSE, 1 + strlen(text)), add((uint64_t)code, 1), add_bytes(text, strlen(text)), finish();
    shutdown(S.fd, SHUT_WR); /* then read to the end, lest a reset destroys what was sent */
    setsockopt(S.fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
    while (recv(S.fd, S.in, sizeof S.in, 0) > 0) continue;
}

static void fail(int code, const char *format, ...)
{
    char text[200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "sender: %s%s\n", text, S.fin_sent ? " (unknown whether the image was kept)" : "");
    bye(code, text);
    exit(1);
}

static void read_all(uint8_t *p, size_t n)
{
    for (int waits = 0; n > 0;) {
        ssize_t k = recv(S.fd, p, n, 0); /* for at most a third of the idle time (SPEC 4) */
        if (k < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (++waits == 3) fail(C_IDLE, "nothing heard for %d seconds", IDLE_S);
            begin(), add_frame(T_PING, 0), finish();
        } else if (k > 0) {
            p += k, n -= (size_t)k, waits = 0;
        } else if (k == 0 || errno != EINTR) {
            fprintf(stderr, "sender: the connection broke%s\n", S.fin_sent ? " (unknown whether the image was kept)" : "");
            exit(1);
        }
    }
}

/* ---- Frames from the peer ---- */

static void need(size_t n, size_t want) { if (n < want) fail(C_TRUNCATED, "a frame of the peer ends inside a field"); }

static void on_hello(const uint8_t *b, size_t n)
{
    need(n, 52);
    if (get(b, 4) < 256) fail(C_MALFORMED, "the peer's messages are too small");
    if (S.hello) return; /* the same again */
    S.max_message = (uint32_t)get(b, 4) < OUT_MAX ? (uint32_t)get(b, 4) : OUT_MAX;
    S.window = (uint32_t)get(b + 4, 4);
    S.window_messages = (uint32_t)get(b + 8, 2);
    S.hello = 1; /* all the rest is for others than senders */
    if (get(b + 12, 2) == 0) fail(C_DONE, "the peer does not receive");
}

/* On TCP all up to the largest arrived, so the ranges are not read. */
static void on_ack(const uint8_t *b, size_t n)
{
    need(n, 14);
    uint32_t largest = (uint32_t)get(b, 4);
    if (largest - S.sent < 0x80000000) fail(C_STATE, "the peer acknowledges what was not sent");
    if (largest - S.acked < 0x80000000 && S.sent - largest <= RING) {
        S.acked = largest + 1;
        S.data_acked = S.after[largest % RING].data;
        S.messages_acked = S.after[largest % RING].messages;
    }
    S.window = (uint32_t)get(b + 6, 4);
    S.window_messages = (uint32_t)get(b + 10, 2);
}

static void on_receipt(const uint8_t *b, size_t n)
{
    need(n, 34);
    if (memcmp(b + 6, S.id, 16) != 0 || !S.fin_sent) fail(C_STATE, "a receipt for another image");
    if (get(b + 24, 8) != S.size || b[32] != SHA256 || n != 33 + 32 || memcmp(b + 33, S.root, 32) != 0)
        fail(C_INTERNAL, "the receiver keeps another image under this ID");
    printf("%s: %llu bytes\n", b[22] == KEPT ? "kept" : "received, not stored", (unsigned long long)S.size);
    S.ack_due = 1, bye(C_DONE, ""), exit(0);
}

static void on_reject(const uint8_t *b, size_t n)
{
    need(n, 28);
    fprintf(stderr, "sender: rejected (reason %d): %.*s\n", b[22], (int)(n - 28), (const char *)b + 28);
    S.ack_due = 1, bye(C_DONE, ""), exit(b[23] & 1 ? 4 : 3);
}

/* Obeys one frame; returns whether it asks for an ACK. */
static int on_frame(int type, const uint8_t *b, size_t n)
{
    switch (type) {
    case T_ACK: on_ack(b, n); return 0;
    case T_HELLO: on_hello(b, n); return 1;
    case T_RECEIPT: on_receipt(b, n); return 1;
    case T_REJECT: on_reject(b, n); return 1;
    case T_PADDING: return 0;
    case T_PING: return 1;
    case T_CLOSE:
        need(n, 1);
        fprintf(stderr, "sender: closed by the peer (code %d): %.*s\n", b[0], (int)(n - 1), (const char *)b + 1), exit(1);
    }
    if (type < 0x80) fail(type < 0x0f ? C_STATE : C_UNKNOWN, "a frame of type %d, which a sender does not get", type);
    return 1;
}

/* Reads one message and obeys it. */
static void receive(void)
{
    uint8_t length[4];
    read_all(length, 4);
    size_t n = (size_t)get(length, 4), at = 13; /* from SPEC 13 and 2 */
    if (n < 17 || n > IN_MAX) fail(C_LIMIT, "a message of %lu bytes: is the peer a pixferry receiver?", (unsigned long)n);
    read_all(S.in, n);
    n -= 4;
    if (crc32c(S.in, n) != get(S.in + n, 4)) fail(C_CHECKSUM, "a message was changed on the way");
    if (S.in[0] & 0x7f) fail(C_MALFORMED, "flags of a later version");
    if (S.in[0] == 0x80) {
        at = 22;
        if (n < at || S.in[13] != 1) fail(C_MALFORMED, "the peer speaks another version");
    }
    if (memcmp(S.in + 1, S.local, 8) != 0) fail(C_STATE, "a message for another session");
    if (get(S.in + 9, 4) != S.received) fail(C_STATE, "a message is missing");
    S.received++;
    if (S.in[0] == 0x80) memcpy(S.remote, S.in + 14, 8);
    S.established = 1;
    while (at < n) {
        int type = S.in[at++];
        if (type == T_DATA) fail(C_STATE, "data, though this side takes none");
        need(n - at, 2);
        size_t body = (size_t)get(S.in + at, 2);
        need(n - at, 2 + body);
        if (on_frame(type, S.in + at + 2, body)) S.ack_due = 1;
        at += 2 + body;
    }
}

/* ---- What we send ---- */

static void send_hello_and_offer(const char *name)
{
    size_t n = strlen(name) < 255 ? strlen(name) : 255;
    begin();
    add_frame(T_HELLO, 52);
    add(IN_MAX, 4);                                /* max message */
    add(0, 4), add(0, 2), add(1, 2), add(0, 2);    /* window, messages, ack ranges, transfers: we receive nothing */
    add(0, 2), add(0, 4), add(0, 4);               /* metadata, message bytes, reorder */
    add(IDLE_S * 1000, 4);                         /* idle */
    add_bytes(S.id, 8), add(0, 8), add_bytes(S.id, 8); /* instance; reset token, of no use on TCP */
    add_frame(T_OFFER, 45 + 3 + n);
    add(HANDLE, 2), add(ATTEMPT, 4), add_bytes(S.id, 16), add(1, 8);
    add(0, 1), add(0, 1), add(SHA256, 1), add(S.size, 8); /* kind image, no flags */
    add(3 + n, 2), add(0, 2);                             /* metadata size and offset */
    add(1, 1), add(n, 2), add_bytes(name, n);             /* field 1: name */
    finish();
}

/* Sends DATA as far as the credit goes and hashes it on the way (SPEC 6, 7 and 9). */
static void send_content(FILE *f)
{
    sha block, root;
    uint8_t digest[32], size[8];
    struct pollfd readable = {S.fd, POLLIN, 0};
    sha_init(&block), sha_init(&root);
    while (S.data < S.size) {
        size_t want = S.max_message - 13 - 21 - 9 - 4; /* header, longest ACK, DATA's header, CRC */
        uint64_t flight = S.data - S.data_acked, left = S.size - S.data, block_left = BLOCK - S.data % BLOCK;
        if (want > left) want = (size_t)left;
        if (want > block_left) want = (size_t)block_left;
        if (flight == 0 && want > S.window) want = S.window; /* one message may always go, of what there is room for */
        int closed = S.window == 0 || flight + want > S.window ||
                     (S.window_messages != 65535 && S.messages - S.messages_acked >= S.window_messages) ||
                     (flight > 0 && S.sent - S.acked >= RING / 2);
        if (closed || poll(&readable, 1, 0) > 0) {
            if (S.ack_due) begin(), finish();
            receive();
            continue;
        }
        begin();
        add(T_DATA, 1), add(HANDLE, 2), add(S.data, 6);
        if (fread(S.out + S.out_n, 1, want, f) != want) fail(C_INTERNAL, "the file became shorter, or cannot be read");
        sha_add(&block, S.out + S.out_n, want);
        S.out_n += want, S.data += want, S.messages++;
        finish_data(want);
        if (S.data % BLOCK == 0 || S.data == S.size) sha_end(&block, digest), sha_init(&block), sha_add(&root, digest, 32);
    }
    put(size, S.size, 8);
    sha_add(&root, size, 8), sha_end(&root, S.root);
    if (fgetc(f) != EOF) fail(C_INTERNAL, "the file became longer");
    begin(), add_frame(T_FIN, 15 + 32);
    add(HANDLE, 2), add(ATTEMPT, 4), add(S.size, 8), add(SHA256, 1), add_bytes(S.root, 32);
    S.fin_sent = 1;
    finish();
}

static int dial(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list, *a;
    int fd = -1, e = getaddrinfo(host, port, &hints, &list);
    if (e) fprintf(stderr, "sender: %s: %s\n", host, gai_strerror(e)), exit(1);
    for (a = list; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen)) close(fd), fd = -1;
    }
    freeaddrinfo(list);
    if (fd < 0) perror("connecting"), exit(1);
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 4) return fprintf(stderr, "usage: sender HOST PORT FILE\n"), 2;
    struct timeval third = {IDLE_S / 3, 0};
    FILE *f = fopen(argv[3], "rb"), *random = fopen("/dev/urandom", "rb");
    if (!f || fseeko(f, 0, SEEK_END) || ftello(f) < 0) perror(argv[3]), exit(1);
    S.size = (uint64_t)ftello(f);
    rewind(f);
    if (!random || fread(S.local, 8, 1, random) != 1 || fread(S.remote, 8, 1, random) != 1 || fread(S.id, 8, 1, random) != 1)
        perror("/dev/urandom"), exit(1);
    fclose(random);
    S.id[15] = 1; /* sender instance 8, at random, and counter 1, big endian */
    signal(SIGPIPE, SIG_IGN);
    S.fd = dial(argv[1], argv[2]);
    setsockopt(S.fd, SOL_SOCKET, SO_RCVTIMEO, &third, sizeof third);
    setsockopt(S.fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    const char *slash = strrchr(argv[3], '/');
    send_hello_and_offer(slash ? slash + 1 : argv[3]);
    while (!S.hello) receive();
    send_content(f);
    for (;;) {
        if (S.ack_due) begin(), finish();
        receive();
    }
}
