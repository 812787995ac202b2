// SPDX-License-Identifier: Apache-2.0
/* Sends small UDP packets of IPv4 as fast as one thread can, past the stack: what is measured is what happens to them.
 *   flood DEVICE TO_MAC FROM_IP TO_IP TO_PORT FLOWS FIRST_FLOW PACKETS SECONDS [RATE]
 * Flows differ by source port, and every 50 000 by source address; with a RATE, so many packets a second are sent, and every
 * 50 000 flows differ by the port that they go to: a pod has one address. Ends after so many packets, 0 for any number, or seconds;
 * prints {"sent", "seconds"}. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH 64
#define PORTS 50000

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	uint8_t body[18];
} __attribute__((packed));

static uint16_t ip_checksum(const void *header)
{
	const uint8_t *bytes = header;
	uint32_t sum = 0;

	for (int i = 0; i < 20; i += 2)
		sum += bytes[i] << 8 | bytes[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	return htons(~(sum + (sum >> 16)));
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_halen = 6 };
	static struct frame frames[BATCH];
	static struct mmsghdr messages[BATCH];
	static struct iovec parts[BATCH];
	struct ifreq device = {};
	uint64_t flows, first, most, sent = 0;
	uint32_t from;
	double began, seconds, rate;
	int fd, on = 1, port;

	if (argc != 10 && argc != 11) {
		fprintf(stderr, "usage: flood DEVICE TO_MAC FROM_IP TO_IP TO_PORT FLOWS FIRST_FLOW PACKETS SECONDS [RATE]\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fd = socket(AF_PACKET, SOCK_RAW, 0);
	strncpy(device.ifr_name, argv[1], IFNAMSIZ - 1);
	if (fd < 0 || ioctl(fd, SIOCGIFHWADDR, &device)) {
		perror(argv[1]);
		return 1;
	}
	to.sll_ifindex = if_nametoindex(argv[1]);
	setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on));
	from = ntohl(inet_addr(argv[3]));
	flows = strtoull(argv[6], NULL, 10);
	first = strtoull(argv[7], NULL, 10);
	most = strtoull(argv[8], NULL, 10);
	seconds = atof(argv[9]);
	rate = argc > 10 ? atof(argv[10]) : 0;
	port = atoi(argv[5]);
	for (int i = 0; i < BATCH; i++) {
		struct frame *f = &frames[i];
		uint8_t *mac = f->eth.h_dest;

		if (sscanf(argv[2], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6)
			return 2;
		memcpy(f->eth.h_source, device.ifr_hwaddr.sa_data, 6);
		f->eth.h_proto = htons(ETH_P_IP);
		f->ip = (struct iphdr){ .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .daddr = inet_addr(argv[4]) };
		f->ip.tot_len = htons(sizeof(*f) - sizeof(f->eth));
		f->udp.len = htons(sizeof(f->udp) + sizeof(f->body));
		parts[i] = (struct iovec){ f, sizeof(*f) };
		messages[i].msg_hdr = (struct msghdr){ .msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = &parts[i], .msg_iovlen = 1 };
	}
	began = now();
	while ((!most || sent < most) && now() - began < seconds) {
		int batch = most && most - sent < BATCH ? (int)(most - sent) : BATCH, done;

		for (int i = 0; i < batch; i++) {
			uint64_t flow = first + (sent + i) % flows;

			frames[i].ip.saddr = htonl(rate > 0 ? from : from + flow / PORTS);
			frames[i].udp.dest = htons(rate > 0 ? port + (int)(flow / PORTS) : port);
			frames[i].udp.source = htons(2000 + flow % PORTS);
			frames[i].ip.check = 0;
			frames[i].ip.check = ip_checksum(&frames[i].ip);
		}
		done = sendmmsg(fd, messages, batch, 0);
		if (done > 0)
			sent += done;
		if (rate > 0 && sent / rate > now() - began)
			nanosleep(&(struct timespec){ .tv_nsec = 500000 }, NULL);
	}
	printf("{\"sent\": %llu, \"seconds\": %f}\n", (unsigned long long)sent, now() - began);
	return 0;
}
