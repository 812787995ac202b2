// What `weir top` shows, and what its keys do. Pure: a state, and a screen of it.
import type { Key } from '../live-screen.ts';
import { printable } from '../printable.ts';
import { type Grouping, groupings, type Sorting, sortings } from './choices.ts';
import { sortRows, type TopRow, topText } from './top-table.ts';

/** What a person has chosen. */
export interface TopState {
  readonly by: Grouping;
  readonly sort: Sorting;
  readonly paused: boolean;
  /** The first row that is shown. */
  readonly offset: number;
  readonly done: boolean;
}

/** The state after a key. */
export function afterKey(state: TopState, key: Key): TopState {
  const next = <T>(all: readonly T[], one: T) => all[(all.indexOf(one) + 1) % all.length]!;
  switch (key) {
    case 'q':
    case 'interrupt':
      return { ...state, done: true };
    case 's':
      return { ...state, sort: next(sortings, state.sort), offset: 0 };
    case 'b':
      return { ...state, by: next(groupings, state.by), offset: 0 };
    case 'p':
      return { ...state, paused: !state.paused };
    case 'up':
      return { ...state, offset: Math.max(0, state.offset - 1) };
    case 'down':
      return { ...state, offset: state.offset + 1 };
    case 'page up':
      return { ...state, offset: Math.max(0, state.offset - 10) };
    case 'page down':
      return { ...state, offset: state.offset + 10 };
    default:
      return state;
  }
}

/** The lines of a screen. `news` is what went wrong last. */
export function topScreen(
  state: TopState,
  rows: readonly TopRow[],
  size: { readonly columns: number; readonly lines: number },
  facts: { readonly windowSeconds: number; readonly lost: number; readonly news: string },
): string[] {
  const room = Math.max(1, size.lines - 3);
  const offset = Math.max(0, Math.min(state.offset, rows.length - room));
  const shown = sortRows(rows, state.sort).slice(offset, offset + room);
  const place = rows.length > room ? `, rows ${offset + 1}-${offset + shown.length} of ${rows.length}` : '';
  const head =
    `by ${state.by}, the last ${facts.windowSeconds} s${place}${state.paused ? ', PAUSED' : ''}` +
    `${facts.lost > 0 ? `, ${facts.lost} events lost` : ''}${facts.news === '' ? '' : `: ${facts.news}`}`;
  const table = topText(shown, { by: state.by, sort: state.sort, terminalColumns: size.columns }).trimEnd().split('\n');
  const keys = 'q quit  s sort  b by  p pause  ↑↓ scroll';
  return [head, ...table, ...new Array(Math.max(0, room - shown.length)).fill(''), keys].map((line) =>
    printable(line).slice(0, size.columns),
  );
}
