/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What arrives for pods: tcx ingress of the node's devices, and of weir_net for what the node itself sends. And the host
 * firewall: what arrives for the node on its devices, and their tcx egress for what it sends to other machines. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/guard.h"
#include "lib/balance_tc.h"
#include "lib/announce.h"

/* Programs that others of this file go on with. Filled by the agent. */
enum { NEXT_BALANCE = 0, NEXT_GUARD = 1 };

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} host_programs SEC(".maps");

static __noinline int device_ip4(struct __sk_buff *skb)
{
	return handle(skb, 0, HOOK_DEVICE);
}

static __noinline int device_ip6(struct __sk_buff *skb)
{
	int act = may_be_solicitation(skb) ? announce_ndp(skb) : TC_ACT_OK;

	if (act != TC_ACT_OK)
		return act;
	return handle(skb, 1, HOOK_DEVICE);
}

SEC("tc")
int device(struct __sk_buff *skb)
{
	int act;

	if (skb->pkt_type == PACKET_OTHERHOST) /* the device hears what is for others; nothing of it is ours to send on */
		return TC_ACT_OK;
	if (skb->vlan_present && (skb->vlan_tci & 0xfff)) /* comes by again on the VLAN's own device */
		return TC_ACT_OK;
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		act = device_ip4(skb);
		break;
	case bpf_htons(ETH_P_IPV6):
		act = device_ip6(skb);
		break;
	case bpf_htons(ETH_P_ARP):
		return announce_arp(skb);
	default:
		return TC_ACT_OK;
	}
	if (act == TC_ACT_UNSPEC) {
		bpf_tail_call(skb, &host_programs, NEXT_BALANCE);
		return TC_ACT_OK;
	}
	return act;
}

static __noinline int node_ip4(struct __sk_buff *skb)
{
	return handle(skb, 0, HOOK_NODE);
}

static __noinline int node_ip6(struct __sk_buff *skb)
{
	return handle(skb, 1, HOOK_NODE);
}

SEC("tc")
int node(struct __sk_buff *skb)
{
	int act;

	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		act = node_ip4(skb);
		break;
	case bpf_htons(ETH_P_IPV6):
		act = node_ip6(skb);
		break;
	default:
		return TC_ACT_SHOT; /* both ends have permanent neighbours: nothing else belongs here */
	}
	if (act == TC_ACT_UNSPEC) {
		bpf_tail_call(skb, &host_programs, NEXT_BALANCE);
		return TC_ACT_SHOT;
	}
	return act;
}

static __noinline int drop_unknown(struct __sk_buff *skb)
{
	struct drop_context c = {};
	struct scratch *s;
	__u32 zero = 0;

	s = bpf_map_lookup_elem(&scratch, &zero); /* balance_skb() read the packet there */
	return s ? drop(skb, &s->packet, &c, DROP_STALE_OR_UNROUTABLE_IP) : TC_ACT_SHOT;
}

/* Goes on with what is for no pod of this node: for backends elsewhere, and their answers. */
SEC("tc")
int balance_host(struct __sk_buff *skb)
{
	int act = skb->protocol == bpf_htons(ETH_P_IPV6) ? balance_skb(skb, 1) : balance_skb(skb, 0);

	if (act != TC_ACT_OK)
		return act;
	/* From the node comes only what is for the address behind which it translates. What no flow knows would go up, and by
	 * the routes come here again, until its hops are used up. */
	if (skb->ifindex == net_ifindex)
		return drop_unknown(skb);
	if (host_firewall)
		bpf_tail_call(skb, &host_programs, NEXT_GUARD);
	return TC_ACT_OK;
}

static __noinline int guard_in_ip4(struct __sk_buff *skb)
{
	return guard(skb, 0, GUARD_IN);
}

static __noinline int guard_in_ip6(struct __sk_buff *skb)
{
	return guard(skb, 1, GUARD_IN);
}

/* Goes on with what is neither for a pod nor for a service: it may be for the node. */
SEC("tc")
int guard_in(struct __sk_buff *skb)
{
	int act = skb->protocol == bpf_htons(ETH_P_IPV6) ? guard_in_ip6(skb) : guard_in_ip4(skb);

	return act == TC_ACT_UNSPEC ? TC_ACT_OK : act;
}

static __noinline int guard_out_ip4(struct __sk_buff *skb)
{
	return guard(skb, 0, GUARD_OUT);
}

static __noinline int guard_out_ip6(struct __sk_buff *skb)
{
	return guard(skb, 1, GUARD_OUT);
}

/* On the way out of a device: attached only while the firewall is on. */
SEC("tc")
int guard_out(struct __sk_buff *skb)
{
	if (!host_firewall || (skb->ingress_ifindex && skb->tc_index == TC_INDEX_SENT_ON))
		return TC_ACT_UNSPEC;
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return guard_out_ip4(skb);
	case bpf_htons(ETH_P_IPV6):
		return guard_out_ip6(skb);
	default:
		return TC_ACT_UNSPEC;
	}
}

char _license[] SEC("license") = "Dual BSD/GPL";
