"""A `.tflite` file as C source, for devices that have no file system.

The array is aligned to 16 bytes, because interpreters read weights in place and the file's
own alignment holds only when the file itself begins at such an address. Source and header
compile as C99 (GCC and compilers that know its attributes), as C11 and as C++11.
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
    """Writes bytes as a C array, the header beside the source.

    Args:
        content: The bytes.
        path: The source: a `.c` or `.cc` file; its folder is made where there is none.
        name: Name of the array; its length is `NAME_len`.

    Returns:
        The source's path and the header's.

    Raises:
        ValueError: `path` has another suffix, or `name` is no name that C and C++ allow.
    """
    source = pathlib.Path(path)
    if source.suffix not in _SUFFIXES:
        raise ValueError(f"path must end in .c or .cc, got {os.fspath(path)!r}")
    _check_name(name)
    header = source.with_suffix(".h")
    # The header first: a kill in between leaves no source without one.
    write_atomically(header, header_text(content, name))
    write_atomically(source, source_text(content, name, header.name))
    return source, header


def source_text(content: bytes, name: str, header: str) -> str:
    """Returns the C source that defines an array of some bytes.

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
    """Returns the header that declares an array of some bytes, for C and C++.

    Args:
        content: The bytes.
        name: Name of the array.
    """
    return _HEADER.format(guard=name.upper(), name=name, length=len(content), alignment=ALIGNMENT)


def c_name(text: str) -> str:
    """Returns a name that C and C++ allow, as near to a text as can be.

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
