/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Never loaded: it only tells the generator of codecs which types user space wants besides the maps' own. */
#include <linux/types.h>

#include "lib/btf_emit.h"
#include "lib/datapath_structs.h"
#include "lib/drop_reasons.h"
#include "lib/pick_query.h"
#include "lib/service_structs.h"

BTF_EMIT(struct, event);
BTF_EMIT(struct, dns_event);
BTF_EMIT(struct, process_event);
BTF_EMIT(enum, process_event_type);
BTF_EMIT(enum, process_counter);
BTF_EMIT(enum, socket_flags);
BTF_EMIT(enum, closed_by);
BTF_EMIT(enum, direction);
BTF_EMIT(enum, host_firewall);
BTF_EMIT(enum, ipcache_flags);
BTF_EMIT(enum, ct_state);
BTF_EMIT(enum, ct_flags);
BTF_EMIT(enum, out_kind);
BTF_EMIT(enum, event_type);
BTF_EMIT(enum, end_cause);
BTF_EMIT(enum, event_flags);
BTF_EMIT(enum, counter);
BTF_EMIT(enum, drop_reason);
BTF_EMIT(struct, pick_query);
BTF_EMIT(enum, pick_cause);
BTF_EMIT(enum, service_scope);
BTF_EMIT(enum, service_flags);
BTF_EMIT(enum, backend_flags);
BTF_EMIT(enum, service_flow_flags);
BTF_EMIT(enum, lb_config_flags);
