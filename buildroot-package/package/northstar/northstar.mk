################################################################################
#
# northstar
#
################################################################################

NORTHSTAR_VERSION = 0.1.0
NORTHSTAR_SITE = $(BR2_EXTERNAL_NORTHSTAR_PATH)/..
NORTHSTAR_SITE_METHOD = local
NORTHSTAR_SETUP_TYPE = setuptools
NORTHSTAR_LICENSE = Apache-2.0
NORTHSTAR_LICENSE_FILES = LICENSE
HOST_NORTHSTAR_DEPENDENCIES = host-python-pynacl host-python-pyyaml host-squashfs

# Whatever wheel is there would be installed, be it of a checkout or of another machine.
define NORTHSTAR_REMOVE_WHEELS
	rm -rf $(@D)/dist
endef
NORTHSTAR_PRE_BUILD_HOOKS += NORTHSTAR_REMOVE_WHEELS
HOST_NORTHSTAR_PRE_BUILD_HOOKS += NORTHSTAR_REMOVE_WHEELS

define NORTHSTAR_LINUX_CONFIG_FIXUPS
	$(foreach option,$(shell sed -n 's/^\(CONFIG_[A-Z0-9_]*\)=y$$/\1/p' \
		$(BR2_EXTERNAL_NORTHSTAR_PATH)/../recipes-northstar/linux/files/northstar.cfg),
		$(call KCONFIG_ENABLE_OPT,$(option))
	)
endef

define NORTHSTAR_INSTALL_FILES
	$(INSTALL) -d -m 0755 $(TARGET_DIR)/etc/northstar/keys
	$(INSTALL) -d -m 0755 $(TARGET_DIR)/usr/share/northstar/packages
	$(INSTALL) -D -m 0644 $(@D)/rootfs-overlay/etc/northstar/northstar.toml \
		$(TARGET_DIR)/etc/northstar/northstar.toml
	$(INSTALL) -D -m 0755 $(@D)/check_conf.sh $(TARGET_DIR)/usr/sbin/check_conf.sh
	$(INSTALL) -D -m 0644 $(@D)/northstar/completions/nstar.bash \
		$(TARGET_DIR)/usr/share/bash-completion/completions/nstar
	$(INSTALL) -D -m 0644 $(@D)/recipes-northstar/linux/files/northstar.cfg \
		$(TARGET_DIR)/usr/share/northstar/northstar.cfg
endef
NORTHSTAR_POST_INSTALL_TARGET_HOOKS += NORTHSTAR_INSTALL_FILES

ifeq ($(BR2_PACKAGE_NORTHSTAR_AGENT),y)
define NORTHSTAR_USERS
	northstar-agent -1 northstar-agent -1 * /var/lib/northstar-agent - - Northstar update agent
endef

define NORTHSTAR_INSTALL_AGENT
	$(INSTALL) -D -m 0644 $(@D)/rootfs-overlay/etc/northstar/agent.toml \
		$(TARGET_DIR)/etc/northstar/agent.toml
endef
NORTHSTAR_POST_INSTALL_TARGET_HOOKS += NORTHSTAR_INSTALL_AGENT

define NORTHSTAR_INSTALL_AGENT_INIT_SYSV
	$(INSTALL) -D -m 0755 $(@D)/rootfs-overlay/etc/init.d/northstar-agent \
		$(TARGET_DIR)/etc/init.d/S85northstar-agent
endef

define NORTHSTAR_INSTALL_AGENT_INIT_SYSTEMD
	$(foreach unit,northstar-agent.service northstar-agent-poll.service northstar-agent-poll.timer,
		$(INSTALL) -D -m 0644 $(@D)/rootfs-overlay/usr/lib/systemd/system/$(unit) \
			$(TARGET_DIR)/usr/lib/systemd/system/$(unit)
	)
	$(INSTALL) -D -m 0644 $(@D)/rootfs-overlay/usr/lib/tmpfiles.d/northstar-agent.conf \
		$(TARGET_DIR)/usr/lib/tmpfiles.d/northstar-agent.conf
endef
endif

define NORTHSTAR_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(@D)/rootfs-overlay/etc/init.d/northstar \
		$(TARGET_DIR)/etc/init.d/S80northstar
	$(NORTHSTAR_INSTALL_AGENT_INIT_SYSV)
endef

define NORTHSTAR_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(@D)/rootfs-overlay/usr/lib/systemd/system/northstar.service \
		$(TARGET_DIR)/usr/lib/systemd/system/northstar.service
	$(INSTALL) -D -m 0644 $(@D)/rootfs-overlay/usr/lib/systemd/system/northstar-boot-complete.service \
		$(TARGET_DIR)/usr/lib/systemd/system/northstar-boot-complete.service
	$(INSTALL) -D -m 0644 $(@D)/rootfs-overlay/usr/lib/tmpfiles.d/northstar.conf \
		$(TARGET_DIR)/usr/lib/tmpfiles.d/northstar.conf
	$(NORTHSTAR_INSTALL_AGENT_INIT_SYSTEMD)
endef

$(eval $(python-package))
$(eval $(host-python-package))
