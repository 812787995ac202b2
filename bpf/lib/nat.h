/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Rewrites an end of a packet, checksums included, for hooks that have a socket buffer. */
#pragma once

#include "addr.h"
#include "drop_reasons.h"
#include "packet.h"

enum end { END_SRC = 0, END_DST = 1 };

/* Where the transport checksum is from the transport header on; 0: there is none that covers addresses. */
static __always_inline __u32 checksum_offset(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return 16;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
		return 6;
	case IPPROTO_ICMPV6:
		return 2;
	default:
		return 0;
	}
}

/* Puts a port of SCTP's in the place of an end's. 0, or the reason to drop. Of a fragment the packet's length is not known,
 * by which the checksum changes.
 * Not static, so that it is verified once and not anew for every way that leads here. */
__noinline int nat_sctp_port(struct __sk_buff *skb, const struct packet *p, int end, __be16 port)
{
	struct sctp_head h;
	__u32 len, changed;

	if (!p || p->first_fragment || p->later_fragment)
		return DROP_UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE;
	len = p->payload_len + sizeof(h);
	if (len > 0xffff || bpf_skb_load_bytes(skb, p->l4_off, &h, sizeof(h)) < 0)
		return DROP_INVALID_PACKET_DROPPED;
	if (end == END_DST) {
		changed = (__u32)(h.dport ^ port) << 16;
		h.dport = port;
	} else {
		changed = h.sport ^ port;
		h.sport = port;
	}
	h.check = sctp_check_after(h.check, changed, len);
	return bpf_skb_store_bytes(skb, p->l4_off, &h, sizeof(h), BPF_F_RECOMPUTE_CSUM) < 0 ? DROP_INVALID_PACKET_DROPPED : 0;
}

/* Puts an address and port in the place of an end; p stays what was read. 0, or the reason to drop. */
static __noinline int nat_rewrite(struct __sk_buff *skb, const struct packet *p, int end, const __u8 *addr, __be16 port)
{
	__u32 sum_off, at, mangled, old_port;
	const __u8 *mine;

	if (!p || !addr)
		return DROP_INVALID_PACKET_DROPPED;
	mine = end == END_DST ? p->dst : p->src;
	old_port = end == END_DST ? p->dport : p->sport;
	sum_off = p->later_fragment ? 0 : checksum_offset(p->protocol);
	mangled = p->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	if (p->protocol == PROTO_SCTP && port != (__be16)old_port) {
		int reason = nat_sctp_port(skb, p, end, port);

		if (reason)
			return reason;
		old_port = port;
	}
	at = p->l4_off + sum_off;
	if (p->ipv6) {
		__s64 diff = bpf_csum_diff((__be32 *)mine, 16, (__be32 *)addr, 16, 0);

		if (sum_off && bpf_l4_csum_replace(skb, at, 0, diff, BPF_F_PSEUDO_HDR | mangled) < 0)
			return DROP_INVALID_PACKET_DROPPED;
		/* BPF_F_PSEUDO_HDR counts on IPv4's header checksum to make up for the address in the device's sum of the whole
		 * packet. Here there is none: the address has to be counted itself, when the transport's sum was. */
		if (bpf_skb_store_bytes(skb, ETH_HLEN + (end == END_DST ? 24 : 8), addr, 16, BPF_F_RECOMPUTE_CSUM) < 0)
			return DROP_INVALID_PACKET_DROPPED;
	} else {
		__u32 was = *(__u32 *)(mine + 12), now = *(__u32 *)(addr + 12);

		if (sum_off && bpf_l4_csum_replace(skb, at, was, now, BPF_F_PSEUDO_HDR | mangled | 4) < 0)
			return DROP_INVALID_PACKET_DROPPED;
		if (bpf_l3_csum_replace(skb, ETH_HLEN + 10, was, now, 4) < 0 ||
		    bpf_skb_store_bytes(skb, ETH_HLEN + (end == END_DST ? 16 : 12), &now, 4, 0) < 0)
			return DROP_INVALID_PACKET_DROPPED;
	}
	if (!p->later_fragment && port != (__be16)old_port) {
		if (sum_off && bpf_l4_csum_replace(skb, at, old_port, port, mangled | 2) < 0)
			return DROP_INVALID_PACKET_DROPPED;
		if (bpf_skb_store_bytes(skb, p->l4_off + (end == END_DST ? 2 : 0), &port, 2, 0) < 0)
			return DROP_INVALID_PACKET_DROPPED;
	}
	return 0;
}

/* Puts an address and port into the packet that an ICMP error speaks of; inner says what is there now. Its transport checksum
 * stays: mostly it is not there any more, and nobody looks at it, as it cannot be verified without the whole packet.
 * end_port: the end above the port; a function has five arguments. */
static __noinline int nat_rewrite_inner(struct __sk_buff *skb, const struct packet *p, const struct packet *inner, __u32 end_port,
					const __u8 *addr)
{
	int end = end_port >> 16;
	__be16 port = end_port;
	__u32 at, sum_at, ports_at, old_port;
	const __u8 *was;

	if (!p || !inner || !addr)
		return DROP_INVALID_PACKET_DROPPED;
	at = p->l4_off + 8;
	sum_at = p->l4_off + 2;
	was = end == END_DST ? inner->dst : inner->src;
	old_port = end == END_DST ? inner->dport : inner->sport;
	ports_at = inner->l4_off + (end == END_DST ? 2 : 0);
	if (p->ipv6) {
		__s64 diff = bpf_csum_diff((__be32 *)was, 16, (__be32 *)addr, 16, 0);

		if (bpf_l4_csum_replace(skb, sum_at, 0, diff, 0) < 0 ||
		    bpf_skb_store_bytes(skb, at + (end == END_DST ? 24 : 8), addr, 16, 0) < 0)
			return DROP_INVALID_PACKET_DROPPED;
	} else {
		__u32 old = *(__u32 *)(was + 12), now = *(__u32 *)(addr + 12);

		/* The inner header's own checksum makes up for the address: the message's does not change. */
		if (bpf_l3_csum_replace(skb, at + 10, old, now, 4) < 0 ||
		    bpf_skb_store_bytes(skb, at + (end == END_DST ? 16 : 12), &now, 4, 0) < 0)
			return DROP_INVALID_PACKET_DROPPED;
	}
	if (port == (__be16)old_port)
		return 0;
	if (bpf_l4_csum_replace(skb, sum_at, old_port, port, 2) < 0 || bpf_skb_store_bytes(skb, ports_at, &port, 2, 0) < 0)
		return DROP_INVALID_PACKET_DROPPED;
	return 0;
}
