//! Runs a target on files: what is committed under corpus/ is run so by CI, with no fuzzer in the program.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Runs the target on every file that the arguments name, folders with all that is in them. Tells each file on which it
/// panics, and fails if there are any, or no files at all.
pub fn run(target: impl Fn(&[u8])) -> ExitCode {
    let mut files = Vec::new();
    for path in std::env::args_os().skip(1).map(PathBuf::from) {
        if let Err(error) = collect(&path, &mut files) {
            eprintln!("{}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    files.sort();
    let mut bad = 0;
    for file in &files {
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) => {
                eprintln!("{}: {error}", file.display());
                return ExitCode::FAILURE;
            }
        };
        // The panic itself has told what and where by then.
        if catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_err() {
            eprintln!("the above came of {}", file.display());
            bad += 1;
        }
    }
    println!("{} inputs, {bad} of them bad", files.len());
    if bad == 0 && !files.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}
