################################################################################
#
# python-pyseccomp
#
################################################################################

PYTHON_PYSECCOMP_VERSION = 0.1.2
PYTHON_PYSECCOMP_SOURCE = pyseccomp-$(PYTHON_PYSECCOMP_VERSION).tar.gz
PYTHON_PYSECCOMP_SITE = https://files.pythonhosted.org/packages/08/e2/f761ad7bd34745af8c8aa6d76a71a240eef45ee4635e2022dcc1b133b4d8
PYTHON_PYSECCOMP_SETUP_TYPE = setuptools
PYTHON_PYSECCOMP_LICENSE = MIT
PYTHON_PYSECCOMP_LICENSE_FILES = setup.cfg

$(eval $(python-package))
