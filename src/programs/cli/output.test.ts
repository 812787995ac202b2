import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Column, tableText } from './output.ts';

interface Row {
  readonly name: string;
  readonly count?: number;
}
const columns: Column<Row>[] = [
  { title: 'NAME', value: (row) => row.name, shrinkTo: 6 },
  { title: 'COUNT', value: (row) => row.count, alignRight: true },
  { title: 'MORE', value: () => 'details', wide: true },
];

test('tableText() aligns columns and leaves no space at the ends of lines', () => {
  assert.equal(
    tableText(columns, [{ name: 'a', count: 5 }, { name: 'longer' }]),
    'NAME    COUNT\na           5\nlonger      -\n',
  );
});

test('tableText() cuts the columns that may be cut until the line fits', () => {
  const rows = [{ name: 'x'.repeat(50), count: 1 }];
  const lines = tableText(columns, rows, { terminalColumns: 20 }).split('\n');
  assert.equal(lines[1], `${'x'.repeat(12)}…      1`);
  assert.equal(lines[1]!.length, 20);
  assert.equal(tableText(columns, rows, { terminalColumns: 4 }).split('\n')[1], 'xxxxx…      1');
});

test('tableText() cuts nothing when wide or when there is no terminal', () => {
  const rows = [{ name: 'x'.repeat(50), count: 1 }];
  assert.match(tableText(columns, rows, { terminalColumns: 20, wide: true }), /x{50} +1 +details/);
  assert.match(tableText(columns, rows), /x{50} +1\n/);
});

test('tableText() lets no control character through to the terminal', () => {
  assert.equal(tableText(columns, [{ name: '\u001b[31mred\n' }]).split('\n')[1], '?[31mred?      -');
});
