/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What arrives for pods: tcx ingress of the node's devices, and of weir_net for what the node itself sends. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/judge.h"

static __noinline int device_ip4(struct __sk_buff *skb)
{
	return handle(skb, 0, HOOK_DEVICE);
}

static __noinline int device_ip6(struct __sk_buff *skb)
{
	return handle(skb, 1, HOOK_DEVICE);
}

SEC("tc")
int device(struct __sk_buff *skb)
{
	if (skb->vlan_present && (skb->vlan_tci & 0xfff)) /* comes by again on the VLAN's own device */
		return TC_ACT_OK;
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return device_ip4(skb);
	case bpf_htons(ETH_P_IPV6):
		return device_ip6(skb);
	default:
		return TC_ACT_OK;
	}
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
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return node_ip4(skb);
	case bpf_htons(ETH_P_IPV6):
		return node_ip6(skb);
	default:
		return TC_ACT_SHOT; /* both ends have permanent neighbours: nothing else belongs here */
	}
}

char _license[] SEC("license") = "Dual BSD/GPL";
