/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Time by the tick: the coarse clock costs a few ns, the exact one 25. Differences survive the wrap after 52 days. */
#pragma once

#include <bpf/bpf_helpers.h>

static __always_inline __u32 clock_ticks(void)
{
	return bpf_ktime_get_coarse_ns() >> 20;
}
