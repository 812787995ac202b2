/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Tells a sender at once that its packet goes nowhere, by an ICMP message that speaks for the address it was sent to:
 * "port unreachable" makes connect() fail with ECONNREFUSED, "too big" makes the sender use smaller packets. */
#pragma once

#include "deliver.h"
#include "packet.h"

enum refusal_kind { REFUSE_PORT = 1, REFUSE_TOO_BIG = 2 };

/* Of the packet complained of, where it is so long: what RFC 792 asks for, and enough for every stack. */
#define REFUSED_BYTES4 28
#define REFUSED_BYTES6 56

struct refusal4 {
	struct iphdr ip;
	__u8 type, code;
	__sum16 check;
	__be16 unused, mtu;
	__u8 packet[REFUSED_BYTES4];
} __attribute__((packed, aligned(4)));

struct refusal6 {
	struct ipv6hdr ip;
	__u8 type, code;
	__sum16 check;
	__be32 mtu;
	__u8 packet[REFUSED_BYTES6];
} __attribute__((packed, aligned(4)));

static __always_inline __sum16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__sum16)~sum;
}

/* Of TCP: what ends a connection at its sender's. */
struct reset {
	__be16 sport, dport;
	__be32 seq, ack;
	__u8 offset, flags;
	__be16 window;
	__sum16 check;
	__be16 urgent;
} __attribute__((packed, aligned(4)));

struct reset4 {
	struct iphdr ip;
	struct reset tcp;
} __attribute__((packed, aligned(4)));

struct reset6 {
	struct ipv6hdr ip;
	struct reset tcp;
} __attribute__((packed, aligned(4)));

/* What is built, on the per-CPU scratch: it is too large for the stack. */
struct refusal {
	union {
		struct refusal4 four;
		struct refusal6 six;
		struct reset4 reset4;
		struct reset6 reset6;
	};
	struct {
		__u8 src[16], dst[16];
		__be32 len, next;
	} pseudo;
};
_Static_assert(sizeof(struct refusal) <= sizeof(((struct scratch *)0)->refusal), "a refusal fits its room");

/* How much is quoted of a packet that says to be of len bytes; 0: it does not say. What is behind its end in a short frame is
 * none of it. */
static __always_inline __u32 quoted_bytes(struct __sk_buff *skb, __u32 len, __u32 header, __u32 most)
{
	if (!len)
		len = skb->len - ETH_HLEN;
	if (len > most)
		return most;
	return len < header ? header : len;
}

static __noinline int refuse_ip4(struct __sk_buff *skb, struct refusal4 *r, int kind, __u16 mtu)
{
	__u32 len;

	if (!r)
		return 0;
	__builtin_memset(r, 0, sizeof(*r));
	if (bpf_skb_load_bytes(skb, ETH_HLEN, r->packet, sizeof(r->ip)) < 0)
		return 0;
	len = quoted_bytes(skb, bpf_ntohs(((struct iphdr *)r->packet)->tot_len), sizeof(r->ip), REFUSED_BYTES4);
	if (bpf_skb_load_bytes(skb, ETH_HLEN, r->packet, len) < 0)
		return 0;
	len += sizeof(*r) - REFUSED_BYTES4;
	if (((struct iphdr *)r->packet)->ihl != 5 || bpf_skb_change_tail(skb, ETH_HLEN + len, 0) < 0)
		return 0;
	r->ip.version = 4;
	r->ip.ihl = 5;
	r->ip.tot_len = bpf_htons(len);
	r->ip.ttl = 64;
	r->ip.protocol = IPPROTO_ICMP;
	r->ip.saddr = ((struct iphdr *)r->packet)->daddr;
	r->ip.daddr = ((struct iphdr *)r->packet)->saddr;
	r->ip.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&r->ip, sizeof(r->ip), 0));
	r->type = ICMP_DEST_UNREACH;
	r->code = kind == REFUSE_TOO_BIG ? 4 : 3;
	r->mtu = bpf_htons(mtu);
	/* What is not quoted is zero: it does not count. */
	r->check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&r->type, sizeof(*r) - sizeof(r->ip), 0));
	return bpf_skb_store_bytes(skb, ETH_HLEN, r, len, 0) == 0;
}

static __noinline int refuse_ip6(struct __sk_buff *skb, struct refusal *room, int kind, __u16 mtu)
{
	struct refusal6 *r;
	__u32 len;

	if (!room)
		return 0;
	r = &room->six;
	__builtin_memset(r, 0, sizeof(*r));
	if (bpf_skb_load_bytes(skb, ETH_HLEN, r->packet, sizeof(r->ip)) < 0)
		return 0;
	len = bpf_ntohs(((struct ipv6hdr *)r->packet)->payload_len);
	len = quoted_bytes(skb, len ? len + sizeof(r->ip) : 0, sizeof(r->ip), REFUSED_BYTES6);
	if (bpf_skb_load_bytes(skb, ETH_HLEN, r->packet, len) < 0)
		return 0;
	len += sizeof(*r) - REFUSED_BYTES6;
	if (bpf_skb_change_tail(skb, ETH_HLEN + len, 0) < 0)
		return 0;
	r->ip.version = 6;
	r->ip.payload_len = bpf_htons(len - sizeof(r->ip));
	r->ip.nexthdr = IPPROTO_ICMPV6;
	r->ip.hop_limit = 64;
	addr_copy_by4((__u8 *)&r->ip.saddr, r->packet + 24);
	addr_copy_by4((__u8 *)&r->ip.daddr, r->packet + 8);
	r->type = kind == REFUSE_TOO_BIG ? 2 : 1;
	r->code = kind == REFUSE_TOO_BIG ? 0 : 4;
	r->mtu = kind == REFUSE_TOO_BIG ? bpf_htonl(mtu) : 0;
	addr_copy_by4(room->pseudo.src, r->packet + 24);
	addr_copy_by4(room->pseudo.dst, r->packet + 8);
	room->pseudo.len = bpf_htonl(len - sizeof(r->ip));
	room->pseudo.next = bpf_htonl(IPPROTO_ICMPV6);
	r->check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&r->type, sizeof(*r) - sizeof(r->ip),
				      bpf_csum_diff(NULL, 0, (__be32 *)&room->pseudo, sizeof(room->pseudo), 0)));
	return bpf_skb_store_bytes(skb, ETH_HLEN, r, len, 0) == 0;
}

/* The reset that answers a segment: with the number that its sender waits for. */
static __always_inline void reset_begin(struct reset *t, const struct packet *p, const __be16 *ports)
{
	t->sport = ports[1];
	t->dport = ports[0];
	t->seq = p->tcp_ack;
	t->offset = sizeof(*t) / 4 << 4;
	t->flags = TCP_RST;
}

static __noinline int reset_ip4(struct __sk_buff *skb, const struct packet *p, struct refusal *room)
{
	struct reset4 *r;
	__be16 ports[2];

	if (!p || !room)
		return 0;
	r = &room->reset4;
	__builtin_memset(room, 0, sizeof(*room));
	if (bpf_skb_load_bytes(skb, ETH_HLEN + 12, &r->ip.daddr, 4) < 0 || bpf_skb_load_bytes(skb, ETH_HLEN + 16, &r->ip.saddr, 4) < 0 ||
	    bpf_skb_load_bytes(skb, p->l4_off, ports, sizeof(ports)) < 0 || bpf_skb_change_tail(skb, ETH_HLEN + sizeof(*r), 0) < 0)
		return 0;
	r->ip.version = 4;
	r->ip.ihl = 5;
	r->ip.tot_len = bpf_htons(sizeof(*r));
	r->ip.ttl = 64;
	r->ip.protocol = IPPROTO_TCP;
	r->ip.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&r->ip, sizeof(r->ip), 0));
	reset_begin(&r->tcp, p, ports);
	*(__be32 *)room->pseudo.src = r->ip.saddr;
	*(__be32 *)room->pseudo.dst = r->ip.daddr;
	room->pseudo.len = bpf_htonl(sizeof(r->tcp));
	room->pseudo.next = bpf_htonl(IPPROTO_TCP);
	r->tcp.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&r->tcp, sizeof(r->tcp),
					  bpf_csum_diff(NULL, 0, (__be32 *)&room->pseudo, sizeof(room->pseudo), 0)));
	return bpf_skb_store_bytes(skb, ETH_HLEN, r, sizeof(*r), 0) == 0;
}

static __noinline int reset_ip6(struct __sk_buff *skb, const struct packet *p, struct refusal *room)
{
	struct reset6 *r;
	__be16 ports[2];

	if (!p || !room)
		return 0;
	r = &room->reset6;
	__builtin_memset(room, 0, sizeof(*room));
	if (bpf_skb_load_bytes(skb, ETH_HLEN + 8, room->pseudo.dst, 16) < 0 || bpf_skb_load_bytes(skb, ETH_HLEN + 24, room->pseudo.src, 16) < 0 ||
	    bpf_skb_load_bytes(skb, p->l4_off, ports, sizeof(ports)) < 0 || bpf_skb_change_tail(skb, ETH_HLEN + sizeof(*r), 0) < 0)
		return 0;
	r->ip.version = 6;
	r->ip.payload_len = bpf_htons(sizeof(r->tcp));
	r->ip.nexthdr = IPPROTO_TCP;
	r->ip.hop_limit = 64;
	addr_copy_by4((__u8 *)&r->ip.saddr, room->pseudo.src);
	addr_copy_by4((__u8 *)&r->ip.daddr, room->pseudo.dst);
	reset_begin(&r->tcp, p, ports);
	room->pseudo.len = bpf_htonl(sizeof(r->tcp));
	room->pseudo.next = bpf_htonl(IPPROTO_TCP);
	r->tcp.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&r->tcp, sizeof(r->tcp),
					  bpf_csum_diff(NULL, 0, (__be32 *)&room->pseudo, sizeof(room->pseudo), 0)));
	return bpf_skb_store_bytes(skb, ETH_HLEN, r, sizeof(*r), 0) == 0;
}

static __always_inline int send_back(struct __sk_buff *skb)
{
	struct {
		__u8 to[6], from[6];
	} eth;
	__u8 from[6];

	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)) < 0)
		return TC_ACT_SHOT;
	__builtin_memcpy(from, eth.from, 6);
	__builtin_memcpy(eth.from, eth.to, 6);
	__builtin_memcpy(eth.to, from, 6);
	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) < 0)
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}

/* Turns the packet into the message and sends it back the way it came. Only first fragments of what is no ICMP itself are
 * answered (RFC 1122 3.2.2); what cannot be answered is dropped in silence. */
static __noinline int refuse_packet(struct __sk_buff *skb, const struct packet *p, int kind, __u32 mtu)
{
	struct scratch *s;
	struct refusal *r;
	__u32 zero = 0;

	if (!p || p->later_fragment || p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6)
		return TC_ACT_SHOT;
	s = bpf_map_lookup_elem(&scratch, &zero);
	if (!s)
		return TC_ACT_SHOT;
	r = (struct refusal *)s->refusal;
	if (!(p->ipv6 ? refuse_ip6(skb, r, kind, mtu) : refuse_ip4(skb, &r->four, kind, mtu)))
		return TC_ACT_SHOT;
	return send_back(skb);
}

/* Tells a sender that policy denies its packet. Stacks give nothing on ICMP about a connection that is open: what belongs
 * to one is answered by a reset. A reset itself is not answered. */
static __always_inline int refuse_denied(struct __sk_buff *skb, const struct packet *p)
{
	struct scratch *s;
	struct refusal *r;
	__u32 zero = 0;

	if (!p)
		return TC_ACT_SHOT;
	if (p->protocol != IPPROTO_TCP || (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return refuse_packet(skb, p, REFUSE_PORT, 0);
	s = bpf_map_lookup_elem(&scratch, &zero);
	if (!s || p->later_fragment || !(p->tcp_flags & TCP_ACK) || (p->tcp_flags & TCP_RST))
		return TC_ACT_SHOT;
	r = (struct refusal *)s->refusal;
	return (p->ipv6 ? reset_ip6(skb, p, r) : reset_ip4(skb, p, r)) ? send_back(skb) : TC_ACT_SHOT;
}
