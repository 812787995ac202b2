/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reads a packet's headers once. Everything later works on struct packet, never on the frame. */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "addr.h"
#include "clock.h"
#include "datapath_maps.h"
#include "drop_reasons.h"
#include "sctp.h"

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define PROTO_SCTP 132

/* linux/icmp.h draws in the C library's headers, which clang does not find for this target. */
#define ICMP_ECHOREPLY 0
#define ICMP_DEST_UNREACH 3
#define ICMP_REDIRECT 5
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY 129

#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_AUTH 51
#define NEXT_DEST_OPTS 60
/* More extension headers than this is not seen outside attacks. */
#define MAX_EXT_HEADERS 6

struct l4_head { /* of TCP; what UDP and SCTP share with it are the ports */
	__be16 sport;
	__be16 dport;
	__be32 seq;
	__be32 ack;
	__u8 offset;
	__u8 flags;
	__be16 window;
};

/* An ICMP message that carries the header of the packet it complains of. */
static __always_inline int icmp_is_error(int ipv6, __u8 type)
{
	if (ipv6)
		return type >= 1 && type <= 4; /* RFC 4443: unreachable, too big, time exceeded, parameter problem */
	return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETERPROB || type == ICMP_REDIRECT;
}

static __always_inline int icmp_is_echo(int ipv6, __u8 type)
{
	if (ipv6)
		return type == ICMPV6_ECHO_REQUEST || type == ICMPV6_ECHO_REPLY;
	return type == ICMP_ECHO || type == ICMP_ECHOREPLY;
}

/* Reads the transport header at p->l4_off. l4_len: what the IP header says is left of the packet from there on. */
static __always_inline int packet_read_l4(struct __sk_buff *skb, struct packet *p, __u32 l4_len)
{
	struct l4_head h;

	switch (p->protocol) {
	case IPPROTO_TCP:
		if (l4_len < 20 || bpf_skb_load_bytes(skb, p->l4_off, &h, 16) < 0)
			return DROP_CT_TRUNCATED_OR_INVALID_HEADER;
		p->sport = h.sport;
		p->dport = h.dport;
		p->tcp_seq = h.seq;
		p->tcp_ack = h.ack;
		p->tcp_flags = h.flags;
		if ((__u32)(h.offset >> 4) * 4 < 20 || (__u32)(h.offset >> 4) * 4 > l4_len)
			return DROP_CT_TRUNCATED_OR_INVALID_HEADER;
		p->payload_len = l4_len - (h.offset >> 4) * 4;
		return 0;
	case PROTO_SCTP:
		if (l4_len < sizeof(struct sctp_head))
			return DROP_CT_TRUNCATED_OR_INVALID_HEADER;
		p->payload_len = l4_len - sizeof(struct sctp_head);
		/* fallthrough */
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_DCCP:
		if (l4_len < 8 || bpf_skb_load_bytes(skb, p->l4_off, &h, 4) < 0)
			return DROP_CT_TRUNCATED_OR_INVALID_HEADER;
		p->sport = h.sport;
		p->dport = h.dport;
		return 0;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		/* ICMP of the other family has no meaning here: judged by its number alone. */
		if ((p->protocol == IPPROTO_ICMPV6) != p->ipv6)
			return 0;
		if (l4_len < 8 || bpf_skb_load_bytes(skb, p->l4_off, &h, 8) < 0)
			return DROP_CT_TRUNCATED_OR_INVALID_HEADER;
		p->icmp_type = (__u8)(bpf_ntohs(h.sport) >> 8);
		p->icmp_code = (__u8)bpf_ntohs(h.sport);
		p->icmp_error = icmp_is_error(p->ipv6, p->icmp_type);
		if (icmp_is_echo(p->ipv6, p->icmp_type))
			p->sport = p->dport = (__be16)(h.seq & 0xffff); /* bytes 4 and 5: the identifier */
		return 0;
	default:
		return 0;
	}
}

static __always_inline void fragment_key_init(struct fragment_key *k, const struct packet *p, __u32 id)
{
	addr_copy(k->src, p->src);
	addr_copy(k->dst, p->dst);
	k->id = id;
	k->protocol = p->protocol;
}

/* What the first fragment said; NULL when it is not known. 30 s is how long receivers wait for the rest
 * (net.ipv4.ipfrag_time). */
static __always_inline struct fragment_ports *fragment_lookup(const struct fragment_key *k)
{
	struct fragment_ports *known = bpf_map_lookup_elem(&fragments, k);

	return known && clock_ticks() - known->seen <= 28610 ? known : NULL;
}

/* Later fragments carry no ports: they are those of the first one. first: the packet is a first fragment. */
static __noinline int packet_fragment(struct packet *p, __u32 id, int first)
{
	struct fragment_ports ports = {}, *known;
	struct fragment_key k __attribute__((aligned(8))) = {};

	if (!p)
		return DROP_INVALID_PACKET_DROPPED;
	fragment_key_init(&k, p, id);
	if (first) {
		p->first_fragment = 1;
		ports.sport = p->sport;
		ports.dport = p->dport;
		ports.seen = clock_ticks();
		bpf_map_update_elem(&fragments, &k, &ports, BPF_ANY);
		return 0;
	}
	p->later_fragment = 1;
	known = fragment_lookup(&k);
	if (!known)
		return DROP_FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND;
	p->sport = known->sport;
	p->dport = known->dport;
	return 0;
}

/* Makes sure that len bytes of the frame can be read directly. */
static __always_inline int packet_have(struct __sk_buff *skb, __u32 len)
{
	if ((void *)(long)skb->data + len <= (void *)(long)skb->data_end)
		return 1;
	return !bpf_skb_pull_data(skb, len) && (void *)(long)skb->data + len <= (void *)(long)skb->data_end;
}

/* Fills p from an IPv4 frame. Returns 0 or the reason to drop. */
static __always_inline int packet_read_ip4(struct __sk_buff *skb, struct packet *p)
{
	__u32 header_len, total_len;
	struct iphdr *ip;
	__u16 frag;
	int reason;

	if (!packet_have(skb, ETH_HLEN + sizeof(*ip)))
		return DROP_CT_TRUNCATED_OR_INVALID_HEADER;
	ip = (void *)(long)skb->data + ETH_HLEN;
	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return DROP_CT_TRUNCATED_OR_INVALID_HEADER;
	header_len = ip->ihl * 4;
	total_len = bpf_ntohs(ip->tot_len);
	if (!total_len) /* BIG TCP: the length does not fit and is left out */
		total_len = skb->len - ETH_HLEN;
	if (ip->version != 4 || header_len < sizeof(*ip) || total_len < header_len || total_len > skb->len - ETH_HLEN)
		return DROP_INVALID_PACKET_DROPPED;
	addr_from_ip4(p->src, ip->saddr);
	addr_from_ip4(p->dst, ip->daddr);
	p->protocol = ip->protocol;
	p->l4_off = ETH_HLEN + header_len;
	frag = bpf_ntohs(ip->frag_off);
	if (frag & 0x1fff) {
		/* RFC 1858: a second fragment that would overwrite TCP's flags */
		if (p->protocol == IPPROTO_TCP && (frag & 0x1fff) == 1)
			return DROP_INVALID_PACKET_DROPPED;
		return packet_fragment(p, ip->id, 0);
	}
	if (frag & 0x2000) {
		__u32 id = ip->id;

		reason = packet_read_l4(skb, p, total_len - header_len);
		return reason ? reason : packet_fragment(p, id, 1);
	}
	return packet_read_l4(skb, p, total_len - header_len);
}

/* Follows IPv6 extension headers from next/p->l4_off to the transport header. */
static __noinline int packet_skip_ext(struct __sk_buff *skb, struct packet *p, __u32 next, __u32 end)
{
	__u32 off, id = 0, fragment_first = 0;
	int i, reason;

	if (!p)
		return DROP_INVALID_PACKET_DROPPED;
	off = p->l4_off;
	for (i = 0; i <= MAX_EXT_HEADERS; i++) {
		struct {
			__u8 next, len;
			__be16 fragment;
			__be32 id;
		} h;

		if (next != NEXT_HOP_BY_HOP && next != NEXT_ROUTING && next != NEXT_DEST_OPTS && next != NEXT_FRAGMENT && next != NEXT_AUTH) {
			p->protocol = next;
			p->l4_off = off;
			if (off > end)
				return DROP_INVALID_PACKET_DROPPED;
			reason = packet_read_l4(skb, p, end - off);
			if (reason)
				return reason;
			return fragment_first ? packet_fragment(p, id, 1) : 0;
		}
		if (i == MAX_EXT_HEADERS || off + 8 > end || off > 0xffff || bpf_skb_load_bytes(skb, off, &h, 8) < 0)
			return DROP_INVALID_IPV6_EXTENSION_HEADER;
		switch (next) {
		case NEXT_ROUTING:
			if (bpf_ntohs(h.fragment) & 0xff) /* segments left: the packet would go on to where nobody judged */
				return DROP_INVALID_IPV6_EXTENSION_HEADER;
			off += (h.len + 1) * 8;
			break;
		case NEXT_FRAGMENT:
			off += 8;
			if (bpf_ntohs(h.fragment) & 0xfff8) {
				p->protocol = h.next;
				p->l4_off = off;
				return packet_fragment(p, h.id, 0);
			}
			if (bpf_ntohs(h.fragment) & 1) {
				/* RFC 8200 4.5: all headers must be in the first fragment; RFC 7112 lets us insist. */
				fragment_first = 1;
				id = h.id;
			}
			break;
		case NEXT_AUTH:
			off += (h.len + 2) * 4;
			break;
		default:
			off += (h.len + 1) * 8;
		}
		next = h.next;
	}
	return DROP_INVALID_IPV6_EXTENSION_HEADER;
}

/* Looks at the packet, not at what was read from it: else all that follows is verified twice, for both outcomes. */
static __always_inline int ip6_is_mapped(const struct in6_addr *a)
{
	return !(a->s6_addr32[0] | a->s6_addr32[1]) && a->s6_addr32[2] == bpf_htonl(0xffff);
}

/* Fills p from an IPv6 frame. Returns 0 or the reason to drop. */
static __always_inline int packet_read_ip6(struct __sk_buff *skb, struct packet *p)
{
	__u32 payload_len;
	struct ipv6hdr *ip;

	if (!packet_have(skb, ETH_HLEN + sizeof(*ip)))
		return DROP_CT_TRUNCATED_OR_INVALID_HEADER;
	ip = (void *)(long)skb->data + ETH_HLEN;
	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return DROP_CT_TRUNCATED_OR_INVALID_HEADER;
	payload_len = bpf_ntohs(ip->payload_len);
	if (!payload_len) /* a jumbogram, as BIG TCP makes */
		payload_len = skb->len - ETH_HLEN - sizeof(*ip);
	if (ip->version != 6 || payload_len > skb->len - ETH_HLEN - sizeof(*ip))
		return DROP_INVALID_PACKET_DROPPED;
	p->ipv6 = 1;
	/* By 8, though it is not aligned: what is written by 4 and read by 8 right after makes the CPU wait for the store. */
	addr_copy(p->src, (const __u8 *)&ip->saddr);
	addr_copy(p->dst, (const __u8 *)&ip->daddr);
	/* ::ffff:a.b.c.d is an IPv4 address inside of a host, and here; from a wire it would speak for that address. */
	if (ip6_is_mapped(&ip->saddr) || ip6_is_mapped(&ip->daddr))
		return DROP_INVALID_PACKET_DROPPED;
	p->l4_off = ETH_HLEN + sizeof(*ip);
	p->protocol = ip->nexthdr;
	if (p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP || p->protocol == IPPROTO_ICMPV6)
		return packet_read_l4(skb, p, payload_len);
	return packet_skip_ext(skb, p, p->protocol, p->l4_off + payload_len);
}
