// Completion for shells, made from the command tree. Every word comes from the tree, so a new flag is completed without
// anybody thinking of it; names of contexts are looked up in their folder when they are asked for.
import { dropReasons } from '../../kernel/datapath.gen.ts';
import type { CommandNode, FlagNode } from './command-tree.ts';
import type { shells } from './completion-command.ts';
import type { NameKind } from './completion-names.ts';

/** The script for a shell. */
export function completionScript(shell: (typeof shells)[number], root: CommandNode): string {
  switch (shell) {
    case 'bash':
      return bashScript(root);
    case 'zsh':
      // zsh understands bash's completion; its own function names the file.
      return `#compdef weir\nautoload -U +X bashcompinit && bashcompinit\n${bashScript(root)}`;
    case 'fish':
      return fishScript(root);
  }
}

/** Where contexts are, as a shell says it. */
const contextFolder = `"\${XDG_CONFIG_HOME:-$HOME/.config}/weir/contexts"`;
const fishContexts = '(path basename -E ~/.config/weir/contexts/*.json)';

/** Values of flags that take more than these, or that the command reads itself. */
const values: Readonly<Record<string, readonly string[]>> = {
  '--verdict': ['forwarded', 'dropped', 'audit'],
  '--drop-reason': dropReasons.map((each) => each.name),
  '--direction': ['ingress', 'egress'],
  '--traffic-direction': ['ingress', 'egress'],
  '--protocol': ['tcp', 'udp', 'sctp', 'icmp', 'icmpv4', 'icmpv6', 'dns'],
  '--ip-version': ['4', '6'],
  '--type': ['drop', 'trace', 'l7'],
};

/** Flags and commands whose values agents know. */
const asked: Readonly<Record<string, NameKind>> = {
  '--namespace': 'namespaces',
  '--from-namespace': 'namespaces',
  '--to-namespace': 'namespaces',
  '--pod': 'pods',
  '--from-pod': 'pods',
  '--to-pod': 'pods',
  '--node': 'nodes',
  '--node-name': 'nodes',
};
const askedArguments: Readonly<Record<string, NameKind>> = { why: 'pods', ps: 'pods' };

/** Values that are known without asking. */
function wordsFor(flag: FlagNode): readonly string[] {
  return flag.choices.length > 0 ? flag.choices : (values[flag.long ?? ''] ?? []);
}

function all(node: CommandNode): CommandNode[] {
  return [node, ...node.children.flatMap(all)];
}

const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;

function namesOf(flag: FlagNode): string[] {
  return [flag.short, flag.long].filter((name) => name !== undefined);
}

function wordsOf(node: CommandNode): string[] {
  return [
    ...node.children.map((child) => child.path.at(-1)!),
    ...node.arguments.flatMap((each) => each.choices),
    ...node.flags.flatMap((flag) => (flag.long === undefined ? namesOf(flag) : [flag.long])),
  ];
}

function bashScript(root: CommandNode): string {
  const nodes = all(root);
  const pathText = (node: CommandNode) => node.path.slice(1).join(' ');
  const descend = nodes
    .filter((node) => node.path.length > 1)
    .map((node) => `      ${quoted(pathText(node))}) path=$next ;;`);
  const values = nodes.flatMap((node) =>
    node.flags
      .filter((flag) => flag.takesValue)
      .map((flag) => {
        const pattern = namesOf(flag)
          .map((name) => quoted(`${pathText(node)}|${name}`))
          .join('|');
        const words =
          flag.long === '--context'
            ? `words=$(cd ${contextFolder} 2>/dev/null && for f in *.json; do [ -e "$f" ] && echo "\${f%.json}"; done)`
            : flag.choices.length === 0 && Object.hasOwn(asked, flag.long ?? '')
              ? `words=$(_weir_names ${asked[flag.long!]})`
              : `words=${quoted(wordsFor(flag).join(' '))}`;
        return `    ${pattern}) ${words}; found=1 ;;`;
      }),
  );
  const words = nodes.map((node) => `      ${quoted(pathText(node))}) words=${quoted(wordsOf(node).join(' '))} ;;`);
  const more = Object.entries(askedArguments).map(
    ([path, kind]) => `      ${quoted(path)}) [[ $current == -* ]] || words="$words $(_weir_names ${kind})" ;;`,
  );
  return `# Completion of weir for bash.
# Names that agents know, of the cluster that the line names; nothing when they do not answer.
_weir_names() {
  local i where=()
  for ((i = 1; i < COMP_CWORD - 1; i++)); do
    case \${COMP_WORDS[i]} in --context|--socket) where+=("\${COMP_WORDS[i]}" "\${COMP_WORDS[i+1]}") ;; esac
  done
  "\${COMP_WORDS[0]}" completion bash --names "$1" "\${where[@]}" 2>/dev/null
}
_weir() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous='' path='' next word i words='' found=''
  [ "$COMP_CWORD" -gt 0 ] && previous=\${COMP_WORDS[COMP_CWORD-1]}
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    next="\${path:+$path }$word"
    case $next in
${descend.join('\n')}
    esac
  done
  case "$path|$previous" in
${values.join('\n')}
  esac
  if [ -z "$found" ]; then
    case $path in
${words.join('\n')}
    esac
    case $path in
${more.join('\n')}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _weir weir
`;
}

function fishScript(root: CommandNode): string {
  const lines = [
    '# Completion of weir for fish.',
    'function __weir_at',
    '  set -l words (commandline -opc)[2..]',
    "  set -l path ''",
    '  for word in $words',
    '    set -l next (string trim "$path $word")',
    '    if contains -- $next $__weir_paths',
    '      set path $next',
    '    end',
    '  end',
    '  test "$path" = "$argv[1]"',
    'end',
  ];
  const nodes = all(root);
  const pathText = (node: CommandNode) => node.path.slice(1).join(' ');
  const paths = nodes.filter((node) => node.path.length > 1).map((node) => quoted(pathText(node)));
  lines.push(`set -g __weir_paths ${paths.join(' ')}`, 'complete -c weir -f');
  for (const node of nodes) {
    const when = `complete -c weir -n ${quoted(`__weir_at ${quoted(pathText(node)).replaceAll("'", '"')}`)}`;
    for (const child of node.children) lines.push(`${when} -a ${child.path.at(-1)} -d ${quoted(child.description)}`);
    for (const argument of node.arguments)
      if (argument.choices.length > 0) lines.push(`${when} -a ${quoted(argument.choices.join(' '))}`);
    const kind = askedArguments[pathText(node)];
    if (kind !== undefined) lines.push(`${when} -a ${quoted(`(weir completion fish --names ${kind} 2>/dev/null)`)}`);
    for (const flag of node.flags) {
      const short = flag.short === undefined ? '' : ` -s ${flag.short.slice(1)}`;
      const long = flag.long === undefined ? '' : ` -l ${flag.long.slice(2)}`;
      const value = !flag.takesValue
        ? ''
        : flag.long === '--context'
          ? ` -x -a ${quoted(fishContexts)}`
          : flag.choices.length === 0 && Object.hasOwn(asked, flag.long ?? '')
            ? ` -x -a ${quoted(`(weir completion fish --names ${asked[flag.long!]} 2>/dev/null)`)}`
            : wordsFor(flag).length > 0
              ? ` -x -a ${quoted(wordsFor(flag).join(' '))}`
              : ' -r';
      lines.push(`${when}${short}${long}${value} -d ${quoted(flag.description)}`);
    }
  }
  return `${lines.join('\n')}\n`;
}
