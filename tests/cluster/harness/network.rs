//! The node's network interface.

use std::process::Command;

use super::assets::run;
use super::names::ALL;

/// Makes a bridge with all addresses of the node.
pub fn set_up() {
    // A bridge without a port has no carrier: it gets one end of a pair. kubelet and kube-proxy look for a default route;
    // this one leads nowhere.
    let addresses: String = ALL.iter().map(|address| format!("ip addr add {address}/24 dev node0\n")).collect();
    let script = format!(
        "set -e
        ip link set lo up
        ip link add node0 type bridge
        {addresses}
        ip link set node0 up
        ip link add port0 type veth peer name port1
        ip link set port0 master node0 up
        ip link set port1 up
        ip route add default via 10.200.0.250 dev node0
        echo 1 > /proc/sys/net/ipv4/ip_forward
        echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
        echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables || true"
    );
    run(Command::new("sh").args(["-c", &script])).expect("a network");
}
