//! A history as a file: an operation a line, as JSON.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::Path,
};

use super::History;

impl History {
    /// Writes it down. Folders that are not there are made.
    pub fn keep(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = BufWriter::new(File::create(path)?);
        for operation in &self.operations {
            serde_json::to_writer(&mut file, operation)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    }

    /// Reads what was written down; an error names the line.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut operations = Vec::new();
        for (at, line) in BufReader::new(File::open(path)?).lines().enumerate() {
            let operation = serde_json::from_str(&line?).map_err(|error| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{}:{}: {error}", path.display(), at + 1))
            })?;
            operations.push(operation);
        }
        Ok(Self { operations })
    }
}
