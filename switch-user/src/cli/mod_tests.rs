//! The command line as a whole.

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

fn daemon(line: &str) -> daemon_args::DaemonArgs {
    match parse(line).unwrap_or_else(|e| panic!("{line}: {e}")).command {
        Command::Daemon(flags) => flags.into_args("/run/x".into()).unwrap_or_else(|e| panic!("{line}: {e}")),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn clap_finds_no_contradiction() {
    Cli::command().debug_assert();
}

#[test]
fn daemon_defaults() {
    let args = daemon("sluice daemon --bridge br0");
    assert_eq!(
        args,
        daemon_args::DaemonArgs {
            rundir: "/run/x".into(),
            bridges: vec!["br0".parse().expect("bridge")],
            ports: vec![],
            max_flows: 131_072,
            flow_limit: 114_688,
            max_idle_ms: 10_000,
            handlers: 0,
            upcall_rate: 50_000,
            upcall_burst: 10_000,
            mac_age_s: 300,
            mac_limit: 8192,
            forward_bpdu: false,
            log: "info".into(),
            bpffs: "/sys/fs/bpf".into(),
        }
    );
}

#[test]
fn daemon_flags() {
    let args = daemon(
        "sluice daemon --rundir /tmp/r --bridge br0,tag=10 --bridge br1 --port eth1 --port tap0,tag=10 \
         --port br1/eth2,trunks=10+20,native=1,hook=xdp --max-flows 1000 --flow-limit 1000 --max-idle 500 \
         --handlers 2 --upcall-rate 0 --upcall-burst 7 --mac-age 9 --mac-limit 10 --forward-bpdu \
         --log warn,sluice=debug --bpffs /b",
    );
    let bridges: Vec<_> = args.bridges.iter().map(|b| b.name.as_str()).collect();
    assert_eq!(bridges, ["br0", "br1"]);
    let ports: Vec<_> = args.ports.iter().map(|p| (p.bridge.as_deref(), p.name.as_str())).collect();
    assert_eq!(ports, [(None, "eth1"), (None, "tap0"), (Some("br1"), "eth2")]);
    assert_eq!((args.max_flows, args.flow_limit, args.max_idle_ms), (1000, 1000, 500));
    assert_eq!((args.handlers, args.upcall_rate, args.upcall_burst), (2, 0, 7));
    assert_eq!((args.mac_age_s, args.mac_limit, args.forward_bpdu), (9, 10, true));
    assert_eq!((args.log.as_str(), args.bpffs.to_str()), ("warn,sluice=debug", Some("/b")));
}

#[test]
fn usage_errors_exit_with_2_and_name_the_part() {
    let table = [
        ("sluice daemon", "--bridge"),
        ("sluice daemon --bridge br0 --port eth1,tag=5000", "tag=5000: '5000' is not a VLAN"),
        ("sluice daemon --bridge br0 --port", "--port"),
        ("sluice daemon --bridge br0 --log what=is=this", "--log"),
        ("sluice daemon --bridge br0 --max-flows 0", "0 is not in 64..=4194304"),
        ("sluice daemon --bridge br0 --mac-age x", "--mac-age"),
        ("sluice daemon --bridge br0 --handlers 65", "65 is not in 0..=64"),
        ("sluice nonsense", "nonsense"),
        ("sluice trace-packet eth1", "--packet"),
        ("sluice trace-packet eth1 --packet ff --flow x", "cannot be used with"),
        ("sluice fdb --flush --json", "cannot be used with"),
        ("sluice top --interval 0", "from 0.1 to 3600"),
        ("sluice completions tcsh", "tcsh"),
        ("sluice", "Usage: sluice"),
    ];
    for (line, part) in table {
        let error = parse(line).err().unwrap_or_else(|| panic!("{line} is taken"));
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(part), "{line}: {error}");
    }
    for line in ["sluice --help", "sluice --version", "sluice daemon --help", "sluice help flows"] {
        assert_eq!(parse(line).err().map(|e| e.exit_code()), Some(0), "{line}");
    }
}

#[test]
fn limits_that_contradict_each_other() {
    let Command::Daemon(flags) =
        parse("sluice daemon --bridge br0 --max-flows 100 --flow-limit 101").expect("parsed").command
    else {
        panic!("another command");
    };
    let error = flags.into_args("/run/x".into()).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "--flow-limit 101 is over --max-flows 100: the table has no slots for them"
    );
}

#[test]
fn run_directory() {
    let environment = |set: &'static [(&str, &str)]| {
        move |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))
    };
    let both = || environment(&[("SLUICE_RUNDIR", "/s"), ("OVS_RUNDIR", "/o")]);
    assert_eq!(rundir(Some("/flag".into()), both()), PathBuf::from("/flag"));
    assert_eq!(rundir(None, both()), PathBuf::from("/s"));
    assert_eq!(
        rundir(None, environment(&[("SLUICE_RUNDIR", ""), ("OVS_RUNDIR", "/o")])),
        PathBuf::from("/o")
    );
    assert_eq!(rundir(None, environment(&[])), PathBuf::from(DEFAULT_RUNDIR));
}

#[test]
fn every_command_teaches_by_example() {
    for command in Cli::command().get_subcommands() {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        if command.get_name() != "man" {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "{} has no example", command.get_name());
        }
    }
}

#[test]
fn flags_of_all_commands_may_stand_behind_the_command() {
    let cli = parse("sluice show br0 -m --json --rundir /r --color never").expect("parsed");
    assert_eq!((cli.rundir, cli.color), (Some("/r".into()), ColorWhen::Never));
    let cli = parse("sluice --rundir /r fdb br0 --names").expect("parsed");
    assert_eq!(cli.rundir, Some("/r".into()));
}
