# SPDX-License-Identifier: Apache-2.0
"""Delta downloads: a package is rebuilt from an older one that is installed, and a few ranges of the new one.

`chunks` cuts a file where its content says so, `index` is the list of a package's chunks that is published
with it, `plan` says what to copy and what to fetch. An index needs no trust: a wrong one gives a file whose
hash is wrong, which is then downloaded as a whole.
"""
