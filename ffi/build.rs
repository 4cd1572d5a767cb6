//! Generates the DPDK bindings from the installed headers and compiles the shim. Does nothing without `dpdk`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "dpdk")]
    dpdk::build();
}

#[cfg(feature = "dpdk")]
mod dpdk {
    use std::path::PathBuf;

    /// The oldest release whose headers the shim's layout assertions were written against.
    const OLDEST: &str = "22.11";

    pub(super) fn build() {
        println!("cargo:rerun-if-changed=wrapper.h");
        println!("cargo:rerun-if-changed=shim.c");
        let flags = compile_flags();
        compile_shim(&flags);
        generate_bindings(&flags);
        link();
    }

    /// What pkg-config says, which is what the distribution compiled DPDK with: `-march=corei7` on Debian, so the
    /// binary runs wherever the libraries do. `-march=native` would not.
    fn compile_flags() -> Vec<String> {
        let found = pkg_config::Config::new().atleast_version(OLDEST).cargo_metadata(false).probe("libdpdk");
        if let Err(reason) = found {
            panic!(
                "the dpdk feature needs DPDK {OLDEST} or newer with headers: on Debian install \
                 dpdk-dev, libclang-dev and pkg-config, or build without the feature.\n{reason}"
            );
        }
        // The crate drops flags it does not know (-include, -march), so ask the tool itself.
        let tool = std::env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
        let output = std::process::Command::new(tool).args(["--cflags", "libdpdk"]).output();
        let output = output.expect("pkg-config has just run");
        let text = String::from_utf8(output.stdout).expect("flags are text");
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn compile_shim(flags: &[String]) {
        let mut build = cc::Build::new();
        build.file("shim.c").warnings(true).opt_level(3);
        for flag in flags {
            build.flag(flag);
        }
        build.compile("sluice_dpdk_shim");
    }

    fn generate_bindings(flags: &[String]) {
        let bindings = bindgen::Builder::default()
            .header("wrapper.h")
            .clang_args(flags)
            .allowlist_function("sluice_.*")
            .allowlist_var("SLUICE_.*")
            .allowlist_var("RTE_PKTMBUF_HEADROOM|RTE_MEMPOOL_CACHE_MAX_SIZE|RTE_VER_(YEAR|MONTH|MINOR)")
            .allowlist_var("RTE_MBUF_F_(RX_(IP|L4)_CKSUM_(MASK|BAD|GOOD|NONE)|INDIRECT|EXTERNAL)")
            .allowlist_var("RTE_MBUF_F_TX_(TCP_SEG|TCP_CKSUM|UDP_CKSUM|IP_CKSUM|IPV4|IPV6)")
            .allowlist_function(
                "rte_(eal_init|strerror|openlog_stream|log_set_global_level|log_cur_msg_loglevel)",
            )
            .allowlist_function("rte_(thread_register|thread_unregister|dev_probe|dev_remove|eal_alarm_set)")
            .allowlist_function("rte_pktmbuf_(pool_create|free_bulk)")
            .allowlist_function("rte_mempool_(free|avail_count|in_use_count)")
            .allowlist_function(
                "rte_eth_dev_(get_port_by_name|info_get|configure|start|stop|close|socket_id)",
            )
            .allowlist_function("rte_eth_dev_(adjust_nb_rx_tx_desc|get_mtu|rss_reta_update|rss_hash_update)")
            .allowlist_function("rte_eth_(rx_queue_setup|tx_queue_setup|macaddr_get|stats_get)")
            .allowlist_function("rte_eth_(promiscuous_enable|allmulticast_enable)")
            .allowlist_type("rte_mbuf|rte_eth_conf|rte_eth_dev_info|rte_eth_stats")
            // What sluice never looks into: smaller output, and no packed or aligned surprises.
            .opaque_type("rte_mempool|rte_device|rte_mbuf_ext_shared_info|rte_eth_(vmdq|dcb).*|FILE|_IO_FILE")
            .default_enum_style(bindgen::EnumVariation::ModuleConsts)
            .derive_default(true)
            .layout_tests(true)
            .use_core()
            .generate_comments(false)
            .generate()
            .expect("bindgen reads DPDK's headers; on Debian it needs libclang-dev");
        let target = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        bindings.write_to_file(target.join("dpdk_bindings.rs")).expect("OUT_DIR is writable");
    }

    /// Links only what is called. The shared EAL loads every installed driver from its plugin folder by itself;
    /// static and shared DPDK in one process would each have their own state.
    fn link() {
        let dir = pkg_config::get_variable("libdpdk", "libdir").unwrap_or_default();
        if !dir.is_empty() {
            println!("cargo:rustc-link-search=native={dir}");
        }
        for library in ["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring", "rte_eal"] {
            println!("cargo:rustc-link-lib=dylib={library}");
        }
    }
}
