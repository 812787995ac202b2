// SPDX-License-Identifier: Apache-2.0
/* Load for the network benchmarks: one blocking thread per connection, nothing clever, so that what is measured is the
 * path between two sockets.
 *   load serve PORT                       answers every kind below on [::]:PORT until it is killed
 *   load rr|crr|stream ADDRESS PORT THREADS SECONDS [RATE]   prints {"kind", "count", "bytes", "seconds", "errors"}
 * rr: one byte each way on a kept connection; crr: connect, one byte each way, close; stream: 128 KiB writes one way.
 * RATE: so many a second of all threads together, and no more. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (128 * 1024)

static struct sockaddr_storage target;
static socklen_t target_len;
static const char *kind;
static atomic_int stopped;
static double pause_s; /* between two of a thread; 0: none */
static atomic_ullong count, bytes, errors;

static void tune(int fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	/* The default here is bbr, which paces: that would be measured instead of the path. */
	setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
}

/* The client says by the first byte what it wants: 'r' is echoed, after 's' everything is swallowed. */
static void *serve_one(void *arg)
{
	int fd = (int)(long)arg;
	char *buffer = malloc(CHUNK);
	int swallow = 0;
	ssize_t n;

	tune(fd);
	while ((n = read(fd, buffer, CHUNK)) > 0) {
		if (buffer[0] == 's')
			swallow = 1;
		if (!swallow && write(fd, buffer, n) != n)
			break;
	}
	close(fd);
	free(buffer);
	return NULL;
}

static int serve(int port)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int fd = socket(AF_INET6, SOCK_STREAM, 0), on = 1, off = 0;
	pthread_attr_t detached;

	/* Started by nsenter in another process namespace: who ends that means this. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)) || listen(fd, 4096)) {
		perror("load: cannot listen");
		return 1;
	}
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&detached, 256 * 1024);
	printf("listening\n");
	fflush(stdout);
	for (;;) {
		int one = accept(fd, NULL, NULL);
		pthread_t thread;

		if (one >= 0 && pthread_create(&thread, &detached, serve_one, (void *)(long)one))
			close(one);
	}
}

static int dial(void)
{
	int fd = socket(target.ss_family, SOCK_STREAM, 0);

	tune(fd);
	if (connect(fd, (struct sockaddr *)&target, target_len)) {
		close(fd);
		return -1;
	}
	return fd;
}

static int exchange(int fd)
{
	char c = 'r';

	return write(fd, &c, 1) == 1 && read(fd, &c, 1) == 1 ? 0 : -1;
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void wait_until(double due)
{
	struct timespec t = { .tv_sec = due, .tv_nsec = (due - (time_t)due) * 1e9 };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static void *client(void *arg)
{
	char *chunk = malloc(CHUNK);
	double due = now_s();
	int fd = -1;

	(void)arg;
	memset(chunk, 's', CHUNK);
	while (!stopped) {
		ssize_t n;

		if (fd < 0 && (fd = dial()) < 0) {
			errors++;
			usleep(1000);
			continue;
		}
		if (!strcmp(kind, "stream")) {
			n = write(fd, chunk, CHUNK);
			if (n > 0)
				bytes += n;
		} else {
			n = exchange(fd) ? -1 : 1;
		}
		if (n <= 0 && !stopped)
			errors++;
		else
			count++;
		if (n <= 0 || !strcmp(kind, "crr")) {
			close(fd);
			fd = -1;
		}
		if (pause_s > 0) {
			due += pause_s;
			wait_until(due);
		}
	}
	free(chunk);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sockaddr_in *v4 = (void *)&target;
	struct sockaddr_in6 *v6 = (void *)&target;
	struct timespec begin, end;
	int threads, i;
	double seconds;

	signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && !strcmp(argv[1], "serve"))
		return serve(atoi(argv[2]));
	if (argc != 6 && argc != 7) {
		fprintf(stderr, "usage: load serve PORT | load rr|crr|stream ADDRESS PORT THREADS SECONDS [RATE]\n");
		return 2;
	}
	kind = argv[1];
	if (inet_pton(AF_INET, argv[2], &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(atoi(argv[3]));
		target_len = sizeof(*v4);
	} else if (inet_pton(AF_INET6, argv[2], &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(atoi(argv[3]));
		target_len = sizeof(*v6);
	} else {
		fprintf(stderr, "load: not an address: %s\n", argv[2]);
		return 2;
	}
	threads = atoi(argv[4]);
	seconds = atof(argv[5]);
	if (argc == 7 && atof(argv[6]) > 0)
		pause_s = threads / atof(argv[6]);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (i = 0; i < threads; i++) {
		pthread_t thread;

		pthread_create(&thread, NULL, client, NULL);
	}
	usleep(seconds * 1e6);
	stopped = 1;
	clock_gettime(CLOCK_MONOTONIC, &end);
	seconds = end.tv_sec - begin.tv_sec + (end.tv_nsec - begin.tv_nsec) / 1e9;
	printf("{\"kind\":\"%s\",\"count\":%llu,\"bytes\":%llu,\"seconds\":%.4f,\"errors\":%llu}\n", kind, (unsigned long long)count,
	       (unsigned long long)bytes, seconds, (unsigned long long)errors);
	fflush(stdout);
	_exit(0);
}
