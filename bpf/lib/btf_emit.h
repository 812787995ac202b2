/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Asks for a TypeScript codec of a struct, or a table of an enum, that is no key or value of a map. */
#pragma once

#define BTF_EMIT(kind, name) const kind name *const __emit_##name __attribute__((used)) = 0
