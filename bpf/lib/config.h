/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the agent sets before it loads a program. Values here are what tests and a bare load get. */
#pragma once

#include <linux/types.h>

/* The pair over which the node's own traffic reaches its pods: weir_net carries the program, weir_host is in the stack. */
const volatile __u32 net_ifindex = 0;
const volatile __u32 host_ifindex = 0;

/* Whether policies for nodes judge the node's own traffic; see enum host_firewall. */
const volatile __u32 host_firewall = 0;

/* An active connection is reported this often, in ticks of 2^20 ns (954 are a second). */
const volatile __u32 report_interval_ticks = 4768;

/* Reports of drops a second, for each device and reason; what is over is counted. */
const volatile __u32 drop_reports_per_second = 200;

/* Lifetimes of idle connections, in ticks. */
const volatile __u32 lifetime_tcp_opening = 57220;  /* 60 s */
const volatile __u32 lifetime_tcp_open = 20599200;  /* 6 h */
const volatile __u32 lifetime_tcp_closing = 9536;   /* 10 s */
const volatile __u32 lifetime_other_opening = 28610; /* 30 s */
const volatile __u32 lifetime_other_open = 171660;  /* 180 s */
