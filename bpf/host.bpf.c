/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What arrives for pods: tcx ingress of the node's devices, and of weir_net for what the node itself sends. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/balance_tc.h"
#include "lib/announce.h"
#include "lib/judge.h"

/* Programs that others of this file go on with. Filled by the agent. */
enum { NEXT_BALANCE = 0 };

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
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

	/* From the node comes only what is for the address behind which it translates. What no flow knows would go up, and by
	 * the routes come here again, until its hops are used up. */
	return act == TC_ACT_OK && skb->ifindex == net_ifindex ? drop_unknown(skb) : act;
}

char _license[] SEC("license") = "Dual BSD/GPL";
