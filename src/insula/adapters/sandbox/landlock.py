"""Landlock: no file, no TCP port, no signal to anybody outside, whatever the file permissions say.

See landlock(7). The rule set handles every access that the running kernel knows and allows none,
so that nothing can be opened any more once it stands; descriptors that are already open stay open.
"""

import ctypes
import os
import struct

_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_VERSION = 1
# how many file rights each version of the interface knows
_FILES = {1: 13, 2: 14, 3: 15, 4: 15}
_FILES_SINCE_5 = 16
_NETWORK_SINCE, _NETWORK = 4, 0b11
_SCOPES_SINCE, _SCOPES = 6, 0b11


def version(libc: ctypes.CDLL) -> int:
    """Return the version of the kernel's interface, 0 if it has none."""
    return max(0, int(libc.syscall(_CREATE_RULESET, None, 0, _VERSION)))


def restrict(libc: ctypes.CDLL) -> None:
    """Deny this thread, and those it starts, everything that Landlock can deny.

    Raises:
        OSError: the kernel has no Landlock, or it is switched off.
    """
    known = version(libc)
    if known == 0:
        raise OSError("the kernel has no Landlock, or it is switched off")
    fields = [(1 << _FILES.get(known, _FILES_SINCE_5)) - 1]
    if known >= _NETWORK_SINCE:
        fields.append(_NETWORK)
    if known >= _SCOPES_SINCE:
        fields.append(_SCOPES)
    rules = struct.pack(f"<{len(fields)}Q", *fields)
    descriptor = libc.syscall(_CREATE_RULESET, rules, len(rules), 0)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "Landlock refused the rule set")
    try:
        if libc.syscall(_RESTRICT_SELF, descriptor, 0) != 0:
            raise OSError(ctypes.get_errno(), "Landlock refused to restrict the process")
    finally:
        os.close(descriptor)
