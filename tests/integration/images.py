# SPDX-License-Identifier: Apache-2.0
"""A small squashfs image for tests, so that none has to be made on the device.

Content: hello ("hello\\n"), link -> hello, sub/file ("nested\\n"), block (16 blocks of 4096 bytes, block n
filled with chr(65 + n)) and the empty directories data, dev, proc, tmp. Blocks of 4096 bytes, file
content not compressed, so that a test can find and damage it; made by

    mksquashfs DIR IMAGE -all-root -noD -noF -no-fragments -no-xattrs -b 4096 -comp gzip
"""

from __future__ import annotations

import base64
import zlib

_PACKED = (
    "eNrtz8lLlHEcB+B3xmmTimkVlBYpIoggm6iLB9NxmhaXIFro0uJYgS1iZILJFGNZRFR0C0KiMIgOLYfADq3UzbpUCEVBBEYb"
    "XUQRLHH+hS4vz3P4fb7L4ctvf0tzS2GQFx+PSDA16I9Ggti/OhMZn+Ui40V7PkfzDgbj/ad8pvP7Q/lcCwAAAIReJQAAABB6"
    "VQAAAEDoJQEAAIDQqwYAAABCLwUAAACE3joAAAAg9NIAAABA6K0HAAAAQm8DAAAAEHobAQAAgNDbBAAAAIReDQAAABB6tQAA"
    "AEDo1QEAAAChVw8AAACE3v5MU9PhwkOZlqOZhsLm4Hj/3j3bn74KJixMReOjk6IPu4KL3UFi5aPOq325ZKKgrOj9xFx5Ym7b"
    "ksWDd7MfXk5uXVASS6xMjJy5vbtzuCC578bXL18W7XycehydvrC26l523qnN5U8uNJxeNbfuyPX3pSdL+zobaufXXytJFwQv"
    "6oorGv+dXH7ux4yKFfHkYPua67NPpLsuNT+PdyyrLit+c3bWz8Z9rR/LP/VWVsaSXW92rB7qG/g1ecqq3sZbEy6l7/z5Ft90"
    "+e33nu53A9Pu9zY8/9PU8zlVPNLWXLN+x+93Ndu25AZeDkWeHZvZsXjsa7uy2djSD8HNooqBRfXDpVe2ZnKvz9f3z9nQU3kg"
    "uPegYDgdiQRjYtmx91i+AwAAgP/tL/XACBg="
)

SQUASHFS = zlib.decompress(base64.b64decode(_PACKED))
BLOCK_FILE = "block"
BLOCK_FILE_CONTENT = b"".join(bytes((65 + n,)) * 4096 for n in range(16))


def offset_of_block(number: int) -> int:
    """Where block `number` of the file "block" is in the image."""
    position = SQUASHFS.find(bytes((65 + number,)) * 4096)
    if position < 0:
        raise ValueError(f"no block {number}")
    return position
