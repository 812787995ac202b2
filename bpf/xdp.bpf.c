/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The balancer in the driver: plain packets from outside to backends on other nodes, and their answers, before the kernel
 * makes a socket buffer of them. Everything else goes up, where tc decides by the same code: what is not for a service,
 * what is for this node's pods, fragments, options, what is too large, and what has to be dropped and said why. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/balance.h"
#include "lib/dsr_options.h"

#define AF_INET 2
#define AF_INET6 10

/* Ones' complement sum of 32-bit words that go and come. */
struct diff {
	__u64 sum;
};

static __always_inline void diff32(struct diff *d, __u32 was, __u32 now)
{
	d->sum += (__u32)~was;
	d->sum += now;
}

static __always_inline void diff_addr(struct diff *d, const __u8 *was, const __u8 *now, int ipv6)
{
	const __u32 *w = (const __u32 *)was, *n = (const __u32 *)now;

	if (ipv6) {
		diff32(d, w[0], n[0]);
		diff32(d, w[1], n[1]);
		diff32(d, w[2], n[2]);
	}
	diff32(d, w[3], n[3]);
}

static __always_inline void checksum_apply(__sum16 *check, struct diff d)
{
	__u64 sum = (__u16)~*check;

	sum += d.sum;
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	*check = (__sum16)~sum;
}

static __always_inline __sum16 checksum_of(const void *data, int words)
{
	const __u32 *w = data;
	__u64 sum = 0;
	int i;

#pragma unroll
	for (i = 0; i < words; i++)
		sum += w[i];
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__sum16)~sum;
}

/* Reads a plain packet. 0 when it is something else. */
static __always_inline int read_plain(struct xdp_md *ctx, struct packet *p, int ipv6)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct l4_head *l4;

	if (ipv6) {
		struct ipv6hdr *ip = data + ETH_HLEN;

		if ((void *)(ip + 1) + 8 > end || ip->version != 6)
			return 0;
		p->ipv6 = 1;
		p->protocol = ip->nexthdr;
		addr_copy_by4(p->src, (const __u8 *)&ip->saddr);
		addr_copy_by4(p->dst, (const __u8 *)&ip->daddr);
		p->l4_off = ETH_HLEN + sizeof(*ip);
		l4 = (void *)(ip + 1);
		if (ip->hop_limit <= 1)
			return 0;
	} else {
		struct iphdr *ip = data + ETH_HLEN;

		if ((void *)(ip + 1) + 8 > end || ip->version != 4 || ip->ihl != 5 || (ip->frag_off & bpf_htons(0x3fff)) || ip->ttl <= 1)
			return 0;
		p->protocol = ip->protocol;
		addr_from_ip4(p->src, ip->saddr);
		addr_from_ip4(p->dst, ip->daddr);
		p->l4_off = ETH_HLEN + sizeof(*ip);
		l4 = (void *)(ip + 1);
	}
	if (!balanced_protocol(p->protocol))
		return 0;
	p->sport = l4->sport;
	p->dport = l4->dport;
	if (p->protocol == IPPROTO_TCP) {
		if ((void *)(l4 + 1) + 4 > end)
			return 0;
		p->tcp_flags = l4->flags;
	}
	return 1;
}

/* Asks the routes. 0 when they do not know, or the next hop's MAC is not known: tc then finds out. */
static __noinline int look_up_way(struct xdp_md *ctx, const __u8 *src, const __u8 *dst, struct frame_way *way, int ipv6)
{
	struct bpf_fib_lookup fib = {};
	__u32 mtu = 0;

	if (!src || !dst || !way)
		return 0;
	fib.ifindex = ctx->ingress_ifindex;
	if (ipv6) {
		fib.family = AF_INET6;
		addr_copy_by4((__u8 *)fib.ipv6_src, src);
		addr_copy_by4((__u8 *)fib.ipv6_dst, dst);
	} else {
		fib.family = AF_INET;
		fib.ipv4_src = *(const __u32 *)(src + 12);
		fib.ipv4_dst = *(const __u32 *)(dst + 12);
	}
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return 0;
	/* Another device may be one that drivers cannot send to (a VLAN, a bridge): the packet would be lost in silence. */
	if (fib.ifindex != ctx->ingress_ifindex)
		return 0;
	bpf_check_mtu(ctx, fib.ifindex, &mtu, 0, 0);
	__builtin_memcpy(way->macs, fib.dmac, 6);
	__builtin_memcpy(way->macs + 6, fib.smac, 6);
	way->mtu = mtu;
	way->ifindex = fib.ifindex;
	way->macs_known = 1;
	return 1;
}

/* Not static, so that it is verified once and not anew for every way that leads here. */
__noinline __u32 sctp_check(__u32 check, __u32 changed, __u32 len)
{
	return sctp_check_after(check, changed, len);
}

/* The length of a plain packet behind its IP header, as that says. */
static __always_inline __u32 l4_len(void *data, int ipv6)
{
	if (ipv6)
		return bpf_ntohs(((struct ipv6hdr *)(data + ETH_HLEN))->payload_len);
	return bpf_ntohs(((struct iphdr *)(data + ETH_HLEN))->tot_len) - sizeof(struct iphdr);
}

/* Puts both ends in the place of those that are there, and takes a hop. what: bit 0 the source, bit 1 the destination. */
static __always_inline int rewrite(struct xdp_md *ctx, const struct packet *p, int what, const __u8 *src, __be16 sport, const __u8 *dst,
				   __be16 dport, int ipv6)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 l4_at = ETH_HLEN + (ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	struct diff addrs = {}, ports = {};
	__be16 *l4_ports = data + l4_at;
	__sum16 *check = NULL;

	if (data + l4_at + 8 > end)
		return 0;
	if (what & 1) {
		diff_addr(&addrs, p->src, src, ipv6);
		diff32(&ports, p->sport, sport);
	}
	if (what & 2) {
		diff_addr(&addrs, p->dst, dst, ipv6);
		diff32(&ports, p->dport, dport);
	}
	if (p->protocol == IPPROTO_TCP) {
		if (data + l4_at + 18 > end)
			return 0;
		check = data + l4_at + 16;
	} else if (p->protocol == IPPROTO_UDP) {
		check = data + l4_at + 6;
	} else {
		__u32 changed = (what & 1 ? p->sport ^ sport : 0) | (what & 2 ? (__u32)(p->dport ^ dport) << 16 : 0);
		struct sctp_head *h = data + l4_at;

		if ((void *)(h + 1) > end)
			return 0;
		if (changed)
			h->check = sctp_check(h->check, changed, l4_len(data, ipv6));
	}
	if (check && !(p->protocol == IPPROTO_UDP && !*check)) {
		struct diff all = { .sum = addrs.sum + ports.sum };

		checksum_apply(check, all);
		if (p->protocol == IPPROTO_UDP && !*check)
			*check = 0xffff;
	}
	if (ipv6) {
		struct ipv6hdr *ip = data + ETH_HLEN;

		if (what & 1)
			addr_copy_by4((__u8 *)&ip->saddr, src);
		if (what & 2)
			addr_copy_by4((__u8 *)&ip->daddr, dst);
		ip->hop_limit--;
	} else {
		struct iphdr *ip = data + ETH_HLEN;

		if (what & 1)
			ip->saddr = *(const __u32 *)(src + 12);
		if (what & 2)
			ip->daddr = *(const __u32 *)(dst + 12);
		diff32(&addrs, 0x0001, 0); /* one hop less: the low byte of a half word, as it lies in memory */
		ip->ttl--;
		checksum_apply(&ip->check, addrs);
	}
	if (what & 1)
		l4_ports[0] = sport;
	if (what & 2)
		l4_ports[1] = dport;
	return 1;
}

static __always_inline int send(struct xdp_md *ctx, const __u8 *macs, __u32 ifindex)
{
	void *data = (void *)(long)ctx->data;

	if (data + ETH_HLEN > (void *)(long)ctx->data_end)
		return XDP_DROP;
	__builtin_memcpy(data, macs, 12);
	count(COUNTER_BALANCED);
	return ifindex == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(ifindex, 0);
}

/* Makes room behind the IP header for the option that names the frontend. */
static __always_inline int add_option(struct xdp_md *ctx, const struct packet *p, int ipv6)
{
	void *data, *end;

	if (ipv6) {
		struct {
			__u8 eth[ETH_HLEN];
			struct ipv6hdr ip;
		} __attribute__((packed)) head;
		struct dsr_option6 o = {};

		data = (void *)(long)ctx->data;
		if (data + sizeof(head) > (void *)(long)ctx->data_end)
			return 0;
		__builtin_memcpy(&head, data, sizeof(head));
		if (bpf_xdp_adjust_head(ctx, -(int)sizeof(o)))
			return 0;
		data = (void *)(long)ctx->data;
		end = (void *)(long)ctx->data_end;
		if (data + sizeof(head) + sizeof(o) > end)
			return 0;
		o.next = head.ip.nexthdr;
		o.len = sizeof(o) / 8 - 1;
		o.type = DSR_OPTION6;
		o.option_len = 18;
		o.port = p->dport;
		__builtin_memcpy(o.addr, p->dst, 16);
		o.pad_type = 1;
		head.ip.payload_len = bpf_htons(bpf_ntohs(head.ip.payload_len) + sizeof(o));
		head.ip.nexthdr = NEXT_DEST_OPTS;
		__builtin_memcpy(data, &head, sizeof(head));
		__builtin_memcpy(data + sizeof(head), &o, sizeof(o));
		return 1;
	} else {
		struct {
			struct iphdr ip;
			struct dsr_option4 option;
		} h;

		data = (void *)(long)ctx->data;
		if (data + ETH_HLEN + sizeof(h.ip) > (void *)(long)ctx->data_end)
			return 0;
		__builtin_memcpy(&h.ip, data + ETH_HLEN, sizeof(h.ip));
		if (bpf_xdp_adjust_head(ctx, -(int)sizeof(h.option)))
			return 0;
		data = (void *)(long)ctx->data;
		end = (void *)(long)ctx->data_end;
		if (data + ETH_HLEN + sizeof(h) > end)
			return 0;
		*(__be16 *)(data + 12) = bpf_htons(ETH_P_IP);
		h.option.type = DSR_OPTION4;
		h.option.len = sizeof(h.option);
		h.option.port = p->dport;
		h.option.addr = *(const __u32 *)(p->dst + 12);
		h.ip.ihl = sizeof(h) / 4;
		h.ip.tot_len = bpf_htons(bpf_ntohs(h.ip.tot_len) + sizeof(h.option));
		h.ip.check = 0;
		h.ip.check = checksum_of(&h, sizeof(h) / 4);
		__builtin_memcpy(data + ETH_HLEN, &h, sizeof(h));
		return 1;
	}
}

/* Puts the packet as it is inside another one to the backend, whose port travels in the outer header. */
static __always_inline int add_tunnel(struct xdp_md *ctx, const struct backend *b, const struct lb_config *config, __u32 inner_len, int ipv6)
{
	void *data, *end;

	if (bpf_xdp_adjust_head(ctx, ipv6 ? -(int)sizeof(struct ipv6hdr) : -(int)sizeof(struct iphdr)))
		return 0;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (ipv6) {
		struct ipv6hdr ip = {};

		if (data + ETH_HLEN + sizeof(ip) > end)
			return 0;
		*(__be16 *)(data + 12) = bpf_htons(ETH_P_IPV6);
		*(__be32 *)&ip = bpf_htonl(0x60000000 | bpf_ntohs(b->port));
		ip.payload_len = bpf_htons(inner_len);
		ip.nexthdr = IPPROTO_IPV6;
		ip.hop_limit = 64;
		__builtin_memcpy(&ip.saddr, config->node6, 16);
		__builtin_memcpy(&ip.daddr, b->addr, 16);
		__builtin_memcpy(data + ETH_HLEN, &ip, sizeof(ip));
	} else {
		struct iphdr ip = {};

		if (data + ETH_HLEN + sizeof(ip) > end)
			return 0;
		*(__be16 *)(data + 12) = bpf_htons(ETH_P_IP);
		ip.version = 4;
		ip.ihl = 5;
		ip.tot_len = bpf_htons(inner_len + sizeof(ip));
		ip.id = b->port;
		ip.frag_off = bpf_htons(0x4000);
		ip.ttl = 64;
		ip.protocol = IPPROTO_IPIP;
		ip.saddr = *(const __u32 *)(config->node4 + 12);
		ip.daddr = *(const __u32 *)(b->addr + 12);
		ip.check = checksum_of(&ip, sizeof(ip) / 4);
		__builtin_memcpy(data + ETH_HLEN, &ip, sizeof(ip));
	}
	return 1;
}

/* Is the frame for this device? It is the one that packets leave by, so the way's source is its MAC. */
static __always_inline int is_for(struct xdp_md *ctx, const struct frame_way *way)
{
	void *data = (void *)(long)ctx->data;
	const __u16 *mine = (const __u16 *)(way->macs + 6);
	__u16 *to = data;

	return data + ETH_HLEN <= (void *)(long)ctx->data_end && to[0] == mine[0] && to[1] == mine[1] && to[2] == mine[2];
}

static __always_inline int is_closing(const struct packet *p)
{
	return p->protocol == IPPROTO_TCP && (p->tcp_flags & (TCP_FIN | TCP_RST));
}

static __always_inline int to_backend(struct xdp_md *ctx, struct packet *p, struct found *found, struct scratch *s, __u32 now, int ipv6)
{
	__u32 room = 0, len = (__u32)bpf_xdp_get_buff_len(ctx) - ETH_HLEN;
	struct lb_config *config = lb_config_read();
	struct service_flow *f = found->flow;
	struct backend *b = found->backend;
	int what = 2, remind = found->fresh;
	const __u8 *nat_addr;

	if (!config || !b)
		return XDP_PASS;
	nat_addr = nat_address(config, ipv6);
	if (f->flags & FLOW_DSR) {
		if (config->flags & LB_DSR_TUNNEL) {
			room = ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
			what = 0;
		} else if (names_frontend(p)) {
			room = option_len(ipv6);
			remind = 0;
		}
	} else {
		what = 3;
		if (addr_is_unset(nat_addr))
			return XDP_PASS;
	}
	if (!f->way.macs_known || now - f->way.checked > HOP_LIFETIME) {
		if (!look_up_way(ctx, f->flags & FLOW_SNAT ? nat_addr : p->src, b->addr, &f->way, ipv6))
			return XDP_PASS;
		f->way.checked = now;
		way_remember(f);
		if (!room)
			remind = 1;
		if (!found->fresh && !keep_reply(p, f, b, s))
			return XDP_PASS;
	}
	if (remind && what == 2 && len + option_len(ipv6) <= f->way.mtu)
		room = option_len(ipv6);
	if (!is_for(ctx, &f->way) || (f->way.mtu && len + room > f->way.mtu))
		return XDP_PASS;
	if (found->fresh) {
		if (balance_begin(p, found, s))
			return XDP_PASS;
	} else if (is_closing(p)) {
		balance_closing(p, found, s);
	}
	if (!rewrite(ctx, p, what, nat_addr, f->nat_port, b->addr, b->port, ipv6))
		return XDP_PASS;
	if (what == 0) {
		if (!add_tunnel(ctx, b, config, len, ipv6))
			return XDP_DROP;
	} else if (room && !add_option(ctx, p, ipv6)) {
		return XDP_DROP;
	}
	return send(ctx, f->way.macs, f->way.ifindex);
}

static __always_inline int to_client(struct xdp_md *ctx, struct packet *p, struct found *found, struct scratch *s, __u32 now, int ipv6)
{
	struct service_reply *r = found->reply;

	if (!r->way.macs_known || now - r->way.checked > HOP_LIFETIME) {
		if (!look_up_way(ctx, r->frontend, r->client, &r->way, ipv6))
			return XDP_PASS;
		r->way.checked = now;
	}
	if (!is_for(ctx, &r->way) || (r->way.mtu && (__u32)bpf_xdp_get_buff_len(ctx) - ETH_HLEN > r->way.mtu))
		return XDP_PASS;
	if (is_closing(p))
		balance_closing(p, found, s);
	if (!rewrite(ctx, p, 3, r->frontend, r->frontend_port, r->client, r->client_port, ipv6))
		return XDP_PASS;
	return send(ctx, r->way.macs, r->way.ifindex);
}

static __always_inline int handle(struct xdp_md *ctx, int ipv6)
{
	struct found found = {};
	struct packet p = {};
	struct scratch *s;
	__u32 zero = 0, now;
	int way;

	if (!read_plain(ctx, &p, ipv6))
		return XDP_PASS;
	s = bpf_map_lookup_elem(&scratch, &zero);
	if (!s)
		return XDP_PASS;
	now = clock_ticks();
	way = balance(&p, s, &found, now);
	if (way != WAY_BACKEND && way != WAY_CLIENT)
		return XDP_PASS; /* of what is to be dropped, too, tc tells the reason */
	if (found.reply)
		return to_client(ctx, &p, &found, s, now, ipv6);
	return found.flow ? to_backend(ctx, &p, &found, s, now, ipv6) : XDP_PASS;
}

static __always_inline int handle4(struct xdp_md *ctx)
{
	return handle(ctx, 0);
}

static __always_inline int handle6(struct xdp_md *ctx)
{
	return handle(ctx, 1);
}

SEC("xdp.frags")
int balance_xdp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;

	if (data + ETH_HLEN > (void *)(long)ctx->data_end)
		return XDP_PASS;
	switch (*(__be16 *)(data + 12)) {
	case bpf_htons(ETH_P_IP):
		return handle4(ctx);
	case bpf_htons(ETH_P_IPV6):
		return handle6(ctx);
	default:
		return XDP_PASS;
	}
}

char _license[] SEC("license") = "Dual BSD/GPL";
