// SPDX-License-Identifier: Apache-2.0
/* Steady traffic that counts every exchange, so that a lost packet shows.
 *   steady serve PORT                echoes TCP and UDP on [::]:PORT until standard input ends
 *   steady ask PORT MS ADDRESS...    every MS to each address: an exchange on a kept TCP connection, one on a new one,
 *                                    and a UDP datagram. Every 50 ms, and when standard input ends, it prints a line
 *                                    {"kept": N, "new": N, "udp": N, "lost": N, "retransmitted": N}: all since the start.
 * An exchange that is not answered within a second is lost, unless the other end is known to have it and merely waits for its
 * turn on a busy machine: then within ten. A retransmission on a kept connection is a packet that was lost on the way. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <linux/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct target {
	struct sockaddr_storage address;
	socklen_t len;
	char text[64];
};

static atomic_ulong kept, fresh, udp, lost;
static atomic_long retransmitted;
static atomic_int stopped;
static int interval_ms;

static void *echo(void *arg)
{
	int fd = (int)(long)arg;
	char data[64];
	ssize_t n;

	while ((n = read(fd, data, sizeof(data))) > 0 && write(fd, data, n) == n)
		;
	close(fd);
	return NULL;
}

static int bound(int type, int port)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int fd = socket(AF_INET6, type | SOCK_CLOEXEC, 0), on = 1, off = 0;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)) || (type == SOCK_STREAM && listen(fd, 1024))) {
		perror("steady: cannot listen");
		exit(1);
	}
	return fd;
}

static void *echo_udp(void *arg)
{
	int fd = (int)(long)arg;

	for (;;) {
		struct sockaddr_storage from;
		socklen_t len = sizeof(from);
		char data[64];
		ssize_t n = recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&from, &len);

		if (n >= 0)
			sendto(fd, data, n, 0, (struct sockaddr *)&from, len);
	}
	return NULL;
}

static void *end_with_input(void *arg)
{
	char byte;

	(void)arg;
	while (read(0, &byte, 1) > 0)
		;
	_exit(0);
}

static void serve(int port)
{
	int listening = bound(SOCK_STREAM, port);
	pthread_t thread;

	pthread_create(&thread, NULL, echo_udp, (void *)(long)bound(SOCK_DGRAM, port));
	pthread_create(&thread, NULL, end_with_input, NULL);
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0 && pthread_create(&thread, NULL, echo, (void *)(long)fd) == 0)
			pthread_detach(thread);
	}
}

static int dial(const struct target *to, int type)
{
	struct timeval second = { .tv_sec = 1 };
	int fd = socket(to->address.ss_family, type | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof(second)); /* also bounds connect() */
	if (connect(fd, (const struct sockaddr *)&to->address, to->len)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Everything that was sent on a connection was acknowledged, and nothing had to be sent again. */
static int has_arrived(int fd)
{
	struct tcp_info info = {};
	socklen_t len = sizeof(info);

	return !getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) && !info.tcpi_unacked && info.tcpi_total_retrans <= info.tcpi_dsack_dups;
}

/* Answers of earlier datagrams may still come: only the one of this number counts. */
static int exchange(int fd, uint32_t number)
{
	uint32_t answer = ~number;
	int seconds = 0;

	if (write(fd, &number, sizeof(number)) != sizeof(number))
		return -1;
	do {
		ssize_t n = read(fd, &answer, sizeof(answer));

		if (n < 0 && errno == EAGAIN && ++seconds < 10 && has_arrived(fd))
			answer = ~number;
		else if (n != sizeof(answer))
			return -1;
	} while (answer != number);
	return 0;
}

/* Retransmissions of packets that had been lost: of the others, which only a busy machine made late, the peer says that
 * it got them twice (RFC 2883). */
static int retransmissions(int fd)
{
	struct tcp_info info = {};
	socklen_t len = sizeof(info);

	getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len);
	return (int)info.tcpi_total_retrans - (int)info.tcpi_dsack_dups;
}

static void note_loss(const struct target *to, const char *what)
{
	if (!stopped) {
		lost++;
		fprintf(stderr, "steady: lost: %s to %s: %s\n", what, to->text, strerror(errno));
	}
}

static void *ask_kept(void *arg)
{
	const struct target *to = arg;
	int before = 0, now;
	uint32_t number = 0;
	int fd = dial(to, SOCK_STREAM);

	if (fd < 0)
		note_loss(to, "kept connection");
	while (!stopped) {
		usleep(interval_ms * 1000);
		if (fd < 0 && (fd = dial(to, SOCK_STREAM)) < 0)
			continue;
		if (exchange(fd, number++)) {
			note_loss(to, "exchange on a kept connection");
			close(fd);
			fd = -1;
			before = 0;
			continue;
		}
		kept++;
		now = retransmissions(fd);
		retransmitted += now - before;
		before = now;
	}
	return NULL;
}

static void *ask_new(void *arg)
{
	const struct target *to = arg;
	struct linger gone = { 1, 0 };
	uint32_t number = 0;

	while (!stopped) {
		int fd = dial(to, SOCK_STREAM);

		if (fd < 0 || exchange(fd, number++))
			note_loss(to, "new connection");
		else
			fresh++;
		if (fd >= 0) {
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &gone, sizeof(gone));
			close(fd);
		}
		usleep(interval_ms * 1000);
	}
	return NULL;
}

static void *ask_udp(void *arg)
{
	const struct target *to = arg;
	uint32_t number = 0;
	int fd = dial(to, SOCK_DGRAM);

	while (!stopped) {
		if (exchange(fd, number++))
			note_loss(to, "datagram");
		else
			udp++;
		usleep(interval_ms * 1000);
	}
	return NULL;
}

static int ask(int port, int count, char **addresses)
{
	static struct target targets[64];
	struct pollfd input = { .fd = 0, .events = POLLIN };
	char byte;
	int i;

	for (i = 0; i < count && i < 64; i++) {
		struct sockaddr_in *v4 = (void *)&targets[i].address;
		struct sockaddr_in6 *v6 = (void *)&targets[i].address;
		void *(*const kinds[])(void *) = { ask_kept, ask_new, ask_udp };
		pthread_t thread;
		size_t k;

		snprintf(targets[i].text, sizeof(targets[i].text), "%s", addresses[i]);
		if (inet_pton(AF_INET, addresses[i], &v4->sin_addr) == 1) {
			v4->sin_family = AF_INET;
			v4->sin_port = htons(port);
			targets[i].len = sizeof(*v4);
		} else {
			inet_pton(AF_INET6, addresses[i], &v6->sin6_addr);
			v6->sin6_family = AF_INET6;
			v6->sin6_port = htons(port);
			targets[i].len = sizeof(*v6);
		}
		for (k = 0; k < 3; k++)
			pthread_create(&thread, NULL, kinds[k], &targets[i]);
	}
	for (;;) {
		int ended = poll(&input, 1, 50) > 0 && read(0, &byte, 1) <= 0;

		if (ended)
			stopped = 1;
		printf("{\"kept\":%lu,\"new\":%lu,\"udp\":%lu,\"lost\":%lu,\"retransmitted\":%ld}\n", kept, fresh, udp, lost,
		       retransmitted);
		fflush(stdout);
		if (ended)
			_exit(0);
	}
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(atoi(argv[2]));
	if (argc > 4 && !strcmp(argv[1], "ask")) {
		interval_ms = atoi(argv[3]);
		return ask(atoi(argv[2]), argc - 4, argv + 4);
	}
	fprintf(stderr, "usage: steady serve PORT | steady ask PORT MS ADDRESS...\n");
	return 2;
}
