################################################################################
#
# python-pynacl
#
################################################################################

# Buildroot has the package for the target; this is the same for the host.
HOST_PYTHON_PYNACL_DEPENDENCIES = host-libsodium host-python-cffi
HOST_PYTHON_PYNACL_ENV = SODIUM_INSTALL=system

$(eval $(host-python-package))
