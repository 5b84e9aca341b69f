/* Requests at a constant arrival rate over kept connections; latency is from the instant at which one was meant to go.
 *
 *     cc -O2 -o pacer pacer.c
 *     pacer PORT RATE SECONDS CONNECTIONS FILE
 *
 * FILE holds one HTTP/1.1 request, word for word. The request number i is due at i / RATE seconds, whether earlier ones
 * were answered or not; where no connection is free it waits, and its wait is part of its latency (no coordinated
 * omission). At most one request is under way on a connection. An answer has Content-Length, or no body.
 *
 * One JSON line comes out. `late` is how long after its instant a request was written although a connection was free:
 * the fault of this program, to be held against the latencies. `cpu_us` is what a request cost this program.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 4096, READ_BYTES = 65536, SLOTS = 2000001, STATUSES = 600, GRACE_S = 3 };

typedef struct {
  int fd;
  int is_busy;
  int64_t due_ns;
  size_t have;
  char buffer[READ_BYTES];
} connection;

static connection *pool[MOST_CONNECTIONS];
static int idle[MOST_CONNECTIONS], idle_first, idle_count; /* a ring: who was answered first is asked first */
static int64_t idle_since_ns;
static uint32_t latency[SLOTS], late[SLOTS]; /* one slot a microsecond; the last one holds all above two seconds */
static long statuses[STATUSES];
static int64_t worst_ns;
static char *message;
static size_t message_bytes;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static int64_t now_ns(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void count(uint32_t *slots, int64_t ns) {
  int64_t us = ns / 1000;
  slots[us < 0 ? 0 : us >= SLOTS ? SLOTS - 1 : us]++;
}

static double quantile_us(const uint32_t *slots, double part) {
  uint64_t total = 0, seen = 0;
  for (int at = 0; at < SLOTS; at++) total += slots[at];
  for (int at = 0; at < SLOTS; at++) {
    seen += slots[at];
    if (total && seen >= part * total) return at;
  }
  return 0;
}

static void read_message(const char *file) {
  FILE *from = fopen(file, "rb");
  if (!from) fail(file);
  message = malloc(READ_BYTES);
  message_bytes = fread(message, 1, READ_BYTES, from);
  fclose(from);
}

static void put_idle(int at) {
  if (!idle_count) idle_since_ns = now_ns();
  idle[(idle_first + idle_count++) % MOST_CONNECTIONS] = at;
}

static int take_idle(void) {
  int at = idle[idle_first];
  idle_first = (idle_first + 1) % MOST_CONNECTIONS;
  idle_count--;
  return at;
}

static void connect_all(int port, int connections, int epoll) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int one = 1;
  for (int at = 0; at < connections; at++) {
    connection *c = pool[at] = calloc(1, sizeof *c);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to)) fail("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = at};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
    put_idle(at);
  }
}

static void send_due(int64_t due_ns) {
  count(late, now_ns() - (due_ns > idle_since_ns ? due_ns : idle_since_ns));
  connection *c = pool[take_idle()];
  c->is_busy = 1;
  c->due_ns = due_ns;
  c->have = 0;
  if (write(c->fd, message, message_bytes) != (ssize_t)message_bytes) fail("write");
}

/* Bytes of the whole answer at the start of the buffer; 0 while it is not all there. */
static size_t answer_bytes(connection *c) {
  c->buffer[c->have] = 0;
  char *end = strstr(c->buffer, "\r\n\r\n");
  if (!end) return 0;
  char *told = strcasestr(c->buffer, "\r\ncontent-length:");
  size_t body = told && told < end ? strtoul(told + 17, NULL, 10) : 0;
  if (!body && strcasestr(c->buffer, "\r\ntransfer-encoding:")) {
    fprintf(stderr, "an answer without Content-Length\n");
    exit(1);
  }
  return (size_t)(end + 4 - c->buffer) + body;
}

/* Read what is there; whether that was the end of an answer. */
static int receive(int at) {
  connection *c = pool[at];
  ssize_t got = read(c->fd, c->buffer + c->have, READ_BYTES - 1 - c->have);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (got <= 0) {
    fprintf(stderr, "the server closed a connection\n");
    exit(1);
  }
  c->have += got;
  size_t whole = answer_bytes(c);
  if (!c->is_busy || !whole || c->have < whole) return 0;
  int64_t took_ns = now_ns() - c->due_ns;
  count(latency, took_ns);
  if (took_ns > worst_ns) worst_ns = took_ns;
  int status = atoi(c->buffer + 9);
  statuses[status > 0 && status < STATUSES ? status : 0]++;
  c->is_busy = 0;
  put_idle(at);
  return 1;
}

static void report(long sent, long answered, double seconds) {
  struct rusage spent;
  getrusage(RUSAGE_SELF, &spent);
  double cpu_us = (spent.ru_utime.tv_sec + spent.ru_stime.tv_sec) * 1e6;
  cpu_us += spent.ru_utime.tv_usec + spent.ru_stime.tv_usec;
  printf("{\"requests\":%ld,\"lost\":%ld,\"per_second\":%.1f,", answered, sent - answered, answered / seconds);
  printf("\"p50_us\":%.0f,\"p90_us\":%.0f,\"p99_us\":%.0f,\"p999_us\":%.0f,", quantile_us(latency, .5),
         quantile_us(latency, .9), quantile_us(latency, .99), quantile_us(latency, .999));
  printf("\"worst_us\":%.0f,\"late_p99_us\":%.0f,", worst_ns / 1e3, quantile_us(late, .99));
  printf("\"cpu_us\":%.2f,\"statuses\":{", answered ? cpu_us / answered : 0);
  const char *comma = "";
  for (int at = 0; at < STATUSES; at++) {
    if (!statuses[at]) continue;
    printf("%s\"%d\":%ld", comma, at, statuses[at]);
    comma = ",";
  }
  printf("}}\n");
}

int main(int argc, char **argv) {
  if (argc != 6) {
    fprintf(stderr, "pacer PORT RATE SECONDS CONNECTIONS FILE\n");
    return 2;
  }
  double rate = atof(argv[2]), seconds = atof(argv[3]);
  int connections = atoi(argv[4]), epoll = epoll_create1(0);
  if (connections < 1 || connections > MOST_CONNECTIONS || rate <= 0) return 2;
  prctl(PR_SET_TIMERSLACK, 1000);
  read_message(argv[5]);
  connect_all(atoi(argv[1]), connections, epoll);
  long total = rate * seconds, sent = 0, answered = 0;
  int64_t begun_ns = now_ns(), end_ns = begun_ns + (int64_t)((seconds + GRACE_S) * 1e9), now = begun_ns;
  struct epoll_event events[256];
  while (answered < total && (now = now_ns()) < end_ns) {
    int64_t due_ns = begun_ns + (int64_t)(sent * 1e9 / rate);
    while (sent < total && due_ns <= now && idle_count) {
      send_due(due_ns);
      sent++;
      due_ns = begun_ns + (int64_t)(sent * 1e9 / rate);
    }
    int64_t wait_ns = sent < total && idle_count ? due_ns - now : 100000000;
    struct timespec wait = {wait_ns > 0 ? wait_ns / 1000000000 : 0, wait_ns > 0 ? wait_ns % 1000000000 : 0};
    int ready = epoll_pwait2(epoll, events, 256, &wait, NULL);
    for (int at = 0; at < ready; at++) answered += receive(events[at].data.u32);
  }
  report(total, answered, (now - begun_ns) / 1e9);
  return 0;
}
