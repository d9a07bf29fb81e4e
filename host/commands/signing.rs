//! `gristmill plugin keygen`, `sign` and `verify`.

use std::{
    ffi::OsString,
    fs::{self, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::Fatal;
use crate::{
    registry,
    signing::{self, PublicKey},
    text,
};

/// What a signer notes is one line; more of it than this is not shown.
const MAX_NOTE: usize = 200;

/// Makes a pair of keys.
pub(super) fn keygen(output: &Path, no_password: bool) -> Result<ExitCode, Fatal> {
    let [secret, public] = ["key", "pub"].map(|extension| with_more(output, extension));
    for path in [&secret, &public] {
        if path.symlink_metadata().is_ok() {
            return Err(Fatal::Failed(format!("{} is already there; name another one with -o", path.display())));
        }
    }
    let password = if no_password { None } else { Some(new_password()?) };
    let (secret_text, public_text) = signing::generate(password).map_err(Fatal::failed)?;
    let key = PublicKey::parse(&public_text).map_err(Fatal::Failed)?;
    write_new(&secret, 0o600, &secret_text)?;
    write_new(&public, 0o644, &public_text)?;
    say(&format!(
        "{} signs plugins: keep it to yourself.\n{} checks signatures. For the configuration:\n\n\
         plugins_signed_by = [\"{key}\"]",
        secret.display(),
        public.display()
    ))
}

/// Signs each file.
pub(super) fn sign(files: &[PathBuf], key: &Path) -> Result<ExitCode, Fatal> {
    let key = read_text(key)?;
    // Asked once, for all files.
    let mut password: Option<String> = None;
    for file in files {
        let bytes = read_plugin(file)?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let mut ask = || -> io::Result<String> {
            match &password {
                Some(password) => Ok(password.clone()),
                None => Ok(password.insert(rpassword::prompt_password("Password of the key: ")?).clone()),
            }
        };
        let signature = signing::sign(&key, &mut ask, &name, &bytes)
            .map_err(|error| Fatal::Failed(format!("cannot sign {}: {error}", file.display())))?;
        let path = with_more(file, "sig");
        replace(&path, &signature).map_err(|error| cannot("write", &path, &error))?;
        say(&path.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks the signature of each file.
pub(super) fn verify(files: &[PathBuf], keys: &[String]) -> Result<ExitCode, Fatal> {
    let keys: Vec<PublicKey> = keys.iter().map(|key| public_key(key)).collect::<Result<_, _>>()?;
    let mut code = ExitCode::SUCCESS;
    for file in files {
        let bytes = read_plugin(file)?;
        let path = with_more(file, "sig");
        let checked = fs::read_to_string(&path)
            .map_err(|error| format!("{} cannot be read: {error}", path.display()))
            .and_then(|signature| {
                signing::verify(&keys, &signature, &bytes).map_err(|error| format!("{} {error}", path.display()))
            });
        match checked {
            Ok(note) => say(&format!("{}: signed, {}", file.display(), text::printable(&note, MAX_NOTE)))?,
            Err(reason) => {
                code = ExitCode::from(1);
                say(&format!("{}: NOT SIGNED: {reason}", file.display()))?
            }
        };
    }
    Ok(code)
}

/// The key itself, or a file with one.
fn public_key(key: &str) -> Result<PublicKey, Fatal> {
    match PublicKey::parse(key) {
        Ok(key) => Ok(key),
        Err(_) => PublicKey::parse(&read_text(Path::new(key))?).map_err(|why| Fatal::Failed(format!("{key} {why}"))),
    }
}

fn new_password() -> Result<String, Fatal> {
    let ask = |prompt: &str| {
        rpassword::prompt_password(prompt).map_err(|error| {
            Fatal::Failed(format!("cannot ask for a password: {error}; do without one with --no-password"))
        })
    };
    let password = ask("Password for the new key: ")?;
    if password.is_empty() {
        return Err(Fatal::Failed("the password is empty; do without one with --no-password".to_owned()));
    }
    if ask("Once more: ")? != password {
        return Err(Fatal::Failed("the two passwords differ".to_owned()));
    }
    Ok(password)
}

/// `x.wasm` and `sig` are `x.wasm.sig`.
fn with_more(path: &Path, extension: &str) -> PathBuf {
    let mut longer = OsString::from(path);
    longer.push(".");
    longer.push(extension);
    PathBuf::from(longer)
}

fn read_plugin(file: &Path) -> Result<Vec<u8>, Fatal> {
    registry::read_named_file(file).map_err(|error| Fatal::Failed(format!("{}: {error}", file.display())))
}

fn read_text(path: &Path) -> Result<String, Fatal> {
    fs::read_to_string(path).map_err(|error| cannot("read", path, &error))
}

/// Also against whoever has been faster.
fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), Fatal> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| cannot("write", path, &error))
}

/// In one step: a host may be looking at it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Fatal {
    Fatal::Failed(format!("cannot {what} {}: {error}", path.display()))
}

fn say(line: &str) -> Result<ExitCode, Fatal> {
    super::plugin::tolerate_closed_pipe(writeln!(io::stdout(), "{line}"))?;
    Ok(ExitCode::SUCCESS)
}
