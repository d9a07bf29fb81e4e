//! A server of another make that plays AWS: ministack, one process for all tests of a binary.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::LazyLock,
};

/// Where it listens; started by the first test that asks.
pub fn endpoint() -> &'static str {
    static RUNNING: LazyLock<Result<Running, String>> = LazyLock::new(start);
    // Every test that needs it says so, not only the first.
    RUNNING.as_ref().map(|running| running.endpoint.as_str()).unwrap_or_else(|error| panic!("{error}"))
}

struct Running {
    endpoint: String,
    /// The server ends when this does: with the tests' process, whichever way that goes.
    _input: ChildStdin,
}

fn start() -> Result<Running, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    if !root.join(".venv/bin/ministack").is_file() {
        let way_out = "run `tests/stand-in.sh`, which needs the network, or `make test`";
        return Err(format!("the stand-in for AWS is not installed: {way_out}"));
    }
    let mut server = Command::new(&python)
        .arg(root.join("tests/support/ministack.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("the stand-in for AWS does not start: {}: {error}", python.display()))?;
    let mut port = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
    if port.is_empty() {
        return Err("the stand-in for AWS ended at once, see above: `rm -r .venv` and `make test` renew it".to_owned());
    }
    // Nobody waits for it: it ends with this process at the earliest.
    Ok(Running { endpoint: format!("http://127.0.0.1:{}", port.trim()), _input: server.stdin.take().unwrap() })
}
