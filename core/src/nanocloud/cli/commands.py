"""The commands of core, and where each is."""

from __future__ import annotations

COMMANDS: dict[str, tuple[str, str]] = {
    # name: (module:function or module:app, help)
    "setup": ("node:setup", "Prepare this machine: folders, keys, certificates, network."),
    "server": ("node:server", "Run the node: API server, controllers, kubelet."),
    "reset": ("node:reset", "Remove everything that Nanocloud made on this machine, data too."),
    "install": ("services:install", "Install a service and what it needs."),
    "uninstall": ("services:uninstall", "Remove a service and its data."),
    "start": ("services:start", "Start a stopped service."),
    "stop": ("services:stop", "Stop a service; its data stays."),
    "restart": ("services:restart", "Restart a service."),
    "status": ("status:status", "Show services, or one service in detail."),
    "logs": ("logs:logs", "Print a service's log."),
    "bundle": ("bundles:app", "Services as files: apply them, or show what would change."),
    "exec": ("execute:execute", "Run a command in a service's container."),
    "events": ("logs:events", "Show what happened."),
    "config": ("access:config", "Print a shell script that installs a kubeconfig."),
    "token": ("access:token", "Make a single-use token for another user or machine."),
    "plugin": ("plugins:app", "Plugins of this installation."),
    "version": ("plugins:version", "Print the version."),
}
