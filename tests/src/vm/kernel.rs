//! A kernel to boot: Debian's, for clouds, unpacked into the target directory. It is not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// An unpacked kernel package.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    /// What qemu boots.
    pub(super) image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The one in the target directory, or else from Debian's archive by `apt-get download`.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) fn find() -> Result<Self, String> {
        // Tests of one process wait for the first; another process may come in between.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _one = ONE_AT_A_TIME.lock();
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        // TARGET/PROFILE/deps/TEST or TARGET/PROFILE/PROGRAM.
        let above = if own.parent().is_some_and(|folder| folder.ends_with("deps")) { 3 } else { 2 };
        let target = own.ancestors().nth(above).ok_or("no target directory")?;
        let home = target.join("vm/kernel");
        if let Some(kernel) = Self::at(&home) {
            return Ok(kernel);
        }
        let fresh = target.join(format!("vm/kernel.{}", std::process::id()));
        let fetched = fetch(&fresh).map(|()| {
            // An error means that another process was faster.
            let _ = fs::rename(&fresh, &home);
        });
        let _ = fs::remove_dir_all(&fresh);
        fetched?;
        Self::at(&home).ok_or_else(|| format!("{PACKAGE} holds no kernel"))
    }

    fn at(home: &Path) -> Option<Self> {
        let starts = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinuz"))
        };
        let image = fs::read_dir(home.join("boot")).ok()?.flatten().map(|entry| entry.path()).find(starts)?;
        let modules = fs::read_dir(home.join("lib/modules")).ok()?.flatten().next()?.path();
        Some(Self { image, modules })
    }

    /// The files of modules `names` and of those that they need, in the order of loading.
    ///
    /// # Errors
    /// The one that is not there.
    pub(super) fn modules(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>, String> {
        let mut files = Vec::new();
        collect(&self.modules.join("kernel"), &mut files);
        let mut taken = Vec::new();
        names.iter().try_for_each(|name| take(name, &files, &mut taken))?;
        Ok(taken)
    }
}

/// Takes what module `name` needs, then the module.
fn take(name: &str, files: &[PathBuf], taken: &mut Vec<(String, Vec<u8>)>) -> Result<(), String> {
    if taken.iter().any(|(other, _)| other == name) {
        return Ok(());
    }
    let is_it = |path: &&PathBuf| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        stem.replace('-', "_") == name.replace('-', "_")
    };
    let path = files.iter().find(is_it).ok_or_else(|| format!("{PACKAGE} has no module {name}"))?;
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    for needed in needs(&bytes) {
        take(&needed, files, taken)?;
    }
    taken.push((name.to_owned(), bytes));
    Ok(())
}

/// The modules that a module names in its `.modinfo` section: `depends=a,b`.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else { return Vec::new() };
    let list = module[at + KEY.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            files.push(path);
        }
    }
}

/// Downloads the package and unpacks it into `directory`; its scripts are not run.
fn fetch(directory: &Path) -> Result<(), String> {
    fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    let depends = said(Command::new("apt-cache").args(["depends", PACKAGE]))?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.ok_or_else(|| format!("{PACKAGE} names no kernel"))?;
    said(Command::new("apt-get").args(["-qq", "download", package]).current_dir(directory))?;
    let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let files = fs::read_dir(directory).map_err(|error| error.to_string())?;
    let file =
        files.flatten().map(|entry| entry.path()).find(is_package).ok_or("apt-get downloaded nothing")?;
    said(Command::new("dpkg").arg("-x").arg(&file).arg(directory))?;
    fs::remove_file(&file).map_err(|error| error.to_string())
}

/// What a program printed, or what it complained about.
fn said(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Depends on the newest one. It has no drivers for hardware that virtual machines lack.
const PACKAGE: &str = "linux-image-cloud-amd64";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        let names = needs(b"license=GPL\0depends=virtio,virtio_ring\0retpoline=Y\0");
        assert_eq!(names, ["virtio", "virtio_ring"]);
        assert!(needs(b"license=GPL\0depends=\0intree=Y\0").is_empty());
        assert!(needs(b"ELF").is_empty());
    }
}
