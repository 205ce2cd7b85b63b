"""Scripts that complete a command line of `tfnas`, for several shells."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence

from absl import flags

from tfnas.cli.flag_forms import choices_of, described

SHELLS = ("bash", "zsh", "fish")


@dataclasses.dataclass(frozen=True)
class CompletedCommand:
    """A command, as scripts complete it.

    Args:
        name: Its name.
        summary: What it does.
        options: Its flags.
        words: What its argument may be; empty: files.
    """

    name: str
    summary: str
    options: Sequence[flags.Flag[object]]
    words: Sequence[str] = ()

    def names(self) -> list[tuple[str, flags.Flag[object]]]:
        """The flags as they are written, without dashes; a switch is also written with "no"."""
        both = [(each.name, each) for each in self.options]
        return both + [(f"no{each.name}", each) for each in self.options if each.boolean]


def script(shell: str, commands: Sequence[CompletedCommand]) -> str:
    """Returns the script of a shell.

    Args:
        shell: One of SHELLS.
        commands: The commands.
    """
    writers = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    return writers[shell](commands)


_BASH = """# bash completion of tfnas; made by `tfnas completion bash`
_tfnas() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    local command="${{COMP_WORDS[1]}}" flag="" words=""
    COMPREPLY=()
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$current"))
        return
    fi
    # bash takes "=" for a word of its own.
    if [[ $current == "=" ]]; then
        flag=$before current=""
    elif [[ $before == "=" ]]; then
        flag=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    if [[ -n $flag ]]; then
        case "$command ${{flag//-/_}}" in
{values}
        esac
    elif [[ $current == -* ]]; then
        local bare=${{current#-}}
        bare=${{bare#-}} current="--${{bare//-/_}}"
        case "$command" in
{flags}
        esac
    else
        case "$command" in
{arguments}
        esac
    fi
    if [[ -n $words ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$current"))
    fi
    if [[ ${{COMPREPLY[0]}} == *= ]]; then
        compopt -o nospace 2> /dev/null
    fi
}}
# What the function leaves open is completed by names of files.
complete -o default -F _tfnas tfnas"""


def _bash(commands: Sequence[CompletedCommand]) -> str:
    values, names, arguments = [], [], []
    for command in commands:
        written = [each if flag.boolean else f"{each}=" for each, flag in command.names()]
        listed = " ".join(f"--{each}" for each in sorted(written))
        names.append(f'            {command.name}) words="{listed}" ;;')
        for flag in command.options:
            if choices := choices_of(flag):
                case = f"'{command.name} __{flag.name}'"
                values.append(f'            {case}) words="{" ".join(choices)}" ;;')
        if command.words:
            arguments.append(f'            {command.name}) words="{" ".join(command.words)}" ;;')
    return _BASH.format(
        commands=" ".join(command.name for command in commands),
        values="\n".join(values),
        flags="\n".join(names),
        arguments="\n".join(arguments),
    )


_ZSH = """#compdef tfnas
# zsh completion of tfnas; made by `tfnas completion zsh`
_tfnas() {{
    local -a commands
    commands=(
{commands}
    )
    if (( CURRENT == 2 )); then
        _describe 'command' commands
        return
    fi
    case $words[2] in
{cases}
    esac
}}
if [[ $funcstack[1] == _tfnas ]]; then
    _tfnas "$@"
else
    compdef _tfnas tfnas
fi"""


def _zsh(commands: Sequence[CompletedCommand]) -> str:
    listed, cases = [], []
    for command in commands:
        listed.append(f"        {shlex.quote(f'{command.name}:{command.summary}')}")
        last = f"({' '.join(command.words)})" if command.words else "_files"
        rows = [_zsh_flag(name, flag) for name, flag in command.names()]
        rows = [shlex.quote(row) for row in (*rows, ":command:", f"*:file:{last}")]
        body = " \\\n                ".join(rows)
        cases.append(
            f"        {command.name})\n            _arguments \\\n                {body} ;;"
        )
    return _ZSH.format(commands="\n".join(listed), cases="\n".join(cases))


def _zsh_flag(name: str, flag: flags.Flag[object]) -> str:
    text = described(flag)
    for special in "\\[]:":
        text = text.replace(special, f"\\{special}")
    if flag.boolean:
        return f"--{name}[{text}]"
    choices = choices_of(flag)
    return f"--{name}=[{text}]:{name}:{'(' + ' '.join(choices) + ')' if choices else '_files'}"


def _fish(commands: Sequence[CompletedCommand]) -> str:
    lines = ["# fish completion of tfnas; made by `tfnas completion fish`"]
    for command in commands:
        text = _fish_quoted(command.summary)
        lines.append(f"complete -c tfnas -n __fish_use_subcommand -f -a {command.name} -d {text}")
        seen = f"-n '__fish_seen_subcommand_from {command.name}'"
        for name, flag in command.names():
            choices, text = choices_of(flag), _fish_quoted(described(flag))
            value = f"-x -a '{' '.join(choices)}' " if choices else "" if flag.boolean else "-r "
            lines.append(f"complete -c tfnas {seen} -l {name} {value}-d {text}")
        if command.words:
            lines.append(f"complete -c tfnas {seen} -f -a '{' '.join(command.words)}'")
    return "\n".join(lines)


def _fish_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
