"""Export of a `.tflite` file as C source, for devices without a file system.

The array is aligned to 16 bytes: interpreters read weights in place, and the alignment inside the
file holds only if the file itself starts at such an address. Source and header compile as C99 (with
GCC and compilers that support its attributes), as C11 and as C++11.
"""

from __future__ import annotations

import os
import pathlib
import re

from tfnas.runtime.files import write_atomically

ALIGNMENT = 16
_BYTES_A_LINE = 12
_SUFFIXES = (".c", ".cc")
_KEYWORDS = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t
    char16_t char32_t class compl concept const consteval constexpr constinit const_cast
    continue co_await co_return co_yield decltype default delete do double dynamic_cast else
    enum explicit export extern false float for friend goto if inline int long mutable
    namespace new noexcept not not_eq nullptr operator or or_eq private protected public
    register reinterpret_cast requires restrict return short signed sizeof static
    static_assert static_cast struct switch template this thread_local throw true try typedef
    typeid typename typeof typeof_unqual union unsigned using virtual void volatile wchar_t
    while xor xor_eq
    _Alignas _Alignof _Atomic _BitInt _Bool _Complex _Decimal128 _Decimal32 _Decimal64 _Generic
    _Imaginary _Noreturn _Static_assert _Thread_local
"""
_SOURCE = """\
#include "{header}"

#if defined(__cplusplus)
#define TFNAS_ALIGNED alignas({alignment})
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define TFNAS_ALIGNED _Alignas({alignment})
#else
#define TFNAS_ALIGNED __attribute__((aligned({alignment})))
#endif

TFNAS_ALIGNED const unsigned char {name}[] = {{
{lines}
}};

const unsigned int {name}_len = {length};
"""
_HEADER = """\
#ifndef TFNAS_{guard}_H_
#define TFNAS_{guard}_H_

#ifdef __cplusplus
extern "C" {{
#endif

/* A .tflite file of {length} bytes, aligned to {alignment} bytes. */
extern const unsigned char {name}[];
extern const unsigned int {name}_len;

#ifdef __cplusplus
}}
#endif

#endif
"""


def save_c(
    content: bytes, path: str | os.PathLike[str], name: str
) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes bytes as a C array: a source file, and a header beside it.

    Args:
        content: The bytes.
        path: Path of the `.c` or `.cc` source file; missing folders are created.
        name: Name of the array; its length is `NAME_len`.

    Returns:
        The path of the source file and of the header.

    Raises:
        ValueError: `path` has another suffix, or `name` is not a C and C++ identifier.
    """
    source = pathlib.Path(path)
    if source.suffix not in _SUFFIXES:
        raise ValueError(f"path must end in .c or .cc, got {os.fspath(path)!r}")
    _check_name(name)
    header = source.with_suffix(".h")
    # The header first, so that an interruption can't leave a source without its header.
    write_atomically(header, header_text(content, name))
    write_atomically(source, source_text(content, name, header.name))
    return source, header


def source_text(content: bytes, name: str, header: str) -> str:
    """Returns the C source that defines the array.

    Example:
        >>> print(source_text(b"TFL", "net", "net.h").splitlines()[11])
          0x54, 0x46, 0x4c,

    Args:
        content: The bytes.
        name: Name of the array.
        header: Name of the header file that declares it.
    """
    blocks = (content[i : i + _BYTES_A_LINE] for i in range(0, len(content), _BYTES_A_LINE))
    lines = "\n".join(f"  0x{block.hex(',').replace(',', ', 0x')}," for block in blocks)
    return _SOURCE.format(
        header=header, name=name, lines=lines, length=len(content), alignment=ALIGNMENT
    )


def header_text(content: bytes, name: str) -> str:
    """Returns the header that declares the array, for C and C++.

    Args:
        content: The bytes.
        name: Name of the array.
    """
    return _HEADER.format(guard=name.upper(), name=name, length=len(content), alignment=ALIGNMENT)


def c_name(text: str) -> str:
    """Returns a C and C++ identifier that resembles a text.

    Example:
        >>> c_name("8-bit net"), c_name("int")
        ('model_8_bit_net', 'model_int')

    Args:
        text: Any text, such as a file's name.
    """
    name = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")
    return name if _is_name(name) else f"model_{name}".rstrip("_")


def _check_name(name: str) -> None:
    if not _is_name(name):
        raise ValueError(
            "name must be a C identifier (letters, digits and _, no digit first) and no keyword "
            f"of C or C++, got {name!r}"
        )


def _is_name(name: str) -> bool:
    return (
        re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) is not None and name not in _KEYWORDS.split()
    )
