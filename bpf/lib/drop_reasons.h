/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Every reason for which the datapath drops a packet: X(name, number, what it means, what to do).
 * Numbers are those of the flow API's DropReason, so that any client of it shows the right name. The list becomes the
 * C enum below, the TypeScript table, `weir drops` and docs/drop-reasons.md: this is the only place to edit. */
#pragma once

/* clang-format off */
#define DROP_REASONS(X) \
	X(INVALID_SOURCE_MAC, 130, "a pod sent a frame with a MAC address that is not its own", "look for a program in the pod that bridges or forges frames") \
	X(INVALID_SOURCE_IP, 132, "the source address does not belong to the sender", "look for a program in the pod that forges addresses, or for two nodes with one pod CIDR") \
	X(POLICY_DENIED, 133, "no policy rule allows the connection and at least one policy isolates the pod", "the flow names the policies that isolate the pod: add a rule to one of them, or accept the denial") \
	X(INVALID_PACKET_DROPPED, 134, "the packet contradicts itself (lengths, fragments)", "look at the sender: a healthy stack does not send this") \
	X(CT_TRUNCATED_OR_INVALID_HEADER, 135, "the packet ends before its transport header does", "look at the sender: a healthy stack does not send this") \
	X(UNSUPPORTED_L3_PROTOCOL, 139, "a pod sent what is neither IPv4, IPv6 nor ARP, or tagged it for a VLAN", "use IPv4 or IPv6, without tags") \
	X(UNKNOWN_L3_TARGET_ADDRESS, 150, "an address that cannot be reached from a pod: multicast, broadcast or unspecified", "use a unicast address") \
	X(STALE_OR_UNROUTABLE_IP, 151, "an address of this node's pod block that no pod has", "the pod is gone or not started yet: look for the name or cache that still points to it") \
	X(CT_MAP_INSERTION_FAILED, 155, "the connection table refused a new entry", "see `weir status`, connection table; raise its size if the node carries that many connections") \
	X(INVALID_IPV6_EXTENSION_HEADER, 156, "more IPv6 extension headers than are followed, or a routing header with segments left", "send without them") \
	X(SERVICE_BACKEND_NOT_FOUND, 158, "the service has no backend that serves", "see `weir service get NAME`: are its pods ready, and is one on this node where the traffic policy is Local?") \
	X(NO_MAPPING_FOR_NAT_MASQUERADE, 167, "no port of the node was free to translate a connection to a remote backend", "see `weir nat list`: many clients to one backend; use direct return (--lb-mode dsr)") \
	X(UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE, 168, "a fragment of an SCTP packet whose port had to be translated: its checksum is of the whole packet", "let the SCTP stacks find out the path MTU, so that they send no fragments, or give the service the port that its pods listen on") \
	X(FIB_LOOKUP_FAILED, 169, "the node has no route to the destination", "look at `ip route get ADDRESS` on the node") \
	X(ENCAPSULATION_TRAFFIC_IS_PROHIBITED, 170, "a packet inside another one, for a pod, from what is no node of the cluster or for no frontend of the pod", "look for who sends IP in IP to pod addresses") \
	X(INVALID_IDENTITY, 171, "an address of this node itself arrived from outside", "look for a host that uses the node's address") \
	X(FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND, 175, "a later fragment arrived, but its first did not", "lost or reordered fragments: lower the datagram size or the MTU") \
	X(FORBIDDEN_ICMPV6_MESSAGE, 176, "a neighbour or router message that a pod has no business sending", "none needed: pods get their routes from Weir") \
	X(DENIED_BY_LB_SRC_RANGE_CHECK, 177, "the client is not in the loadBalancerSourceRanges of the service", "add its block to the service, or accept the denial") \
	X(TTL_EXCEEDED, 196, "the packet had no hops left", "look for a routing loop, or a sender with a tiny TTL") \
	X(ENDPOINT_NOT_READY, 203, "the pod has no identity on this node yet", "wait a moment; if it lasts, see `weir endpoint list` and the agent's log") \
	X(ICMP_ERROR_UNRELATED, 230, "an ICMP error that speaks of no connection known here", "nothing, unless connections hang: then look for a router that answers late or with the wrong header") \
	X(DIRECT_RETURN_NOT_BELIEVED, 231, "a packet names a service of which its destination is no backend", "look for a node with another view of the service (weir service get NAME on both), or for who forges such packets")
/* clang-format on */

enum drop_reason {
	DROP_NONE = 0,
#define X(name, number, meaning, action) DROP_##name = number,
	DROP_REASONS(X)
#undef X
};
