//! The one thread that writes the access log out.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use super::{AccessLog, Destination, Lines};
use crate::{error::Error, metrics::Metrics};

/// The most buffers that wait to be written, of all workers together: some 4 MiB.
const WAITING_MAX: usize = 64;

/// Starts the thread. It ends when the last worker's end is gone and all is written, and then lets go of
/// `alive`.
pub(crate) fn start<A: Send + 'static>(
    log: &AccessLog,
    metrics: Arc<Metrics>,
    alive: A,
) -> Result<SyncSender<Lines>, Error> {
    let to: Box<dyn Write + Send> = match &log.to {
        Destination::Stdout => Box::new(io::stdout()),
        Destination::Stderr => Box::new(io::stderr()),
        Destination::File(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Box::new(file.map_err(|error| Error::AccessLog { path: path.clone(), error })?)
        }
    };
    let (sender, lines) = sync_channel(WAITING_MAX);
    let thread = std::thread::Builder::new().name("gateway-access".into()).spawn(move || {
        let _alive = alive;
        write(to, &lines, &metrics);
    });
    thread.map_err(Error::Worker)?;
    Ok(sender)
}

fn write(mut to: impl Write, lines: &Receiver<Lines>, metrics: &Metrics) {
    let mut failing = false;
    for lines in lines {
        let written = to.write_all(&lines.bytes).and_then(|()| to.flush());
        match &written {
            Ok(()) if failing => tracing::info!("the access log is written again"),
            Err(error) if !failing => {
                tracing::warn!(%error, "the access log can't be written; its lines are dropped")
            }
            _ => {}
        }
        failing = written.is_err();
        if failing {
            metrics.access_log_dropped.add(lines.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the second of three.
    struct Flaky(u32);

    impl Write for Flaky {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += 1;
            if self.0 == 2 { Ok(bytes.len()) } else { Err(io::ErrorKind::StorageFull.into()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_can_not_be_written_is_counted_and_tried_no_more() {
        let (sender, lines) = sync_channel(3);
        for count in [1, 10, 100] {
            sender.send(Lines { bytes: b"x\n".to_vec(), count }).unwrap();
        }
        drop(sender);
        let metrics = Metrics::default();
        write(Flaky(0), &lines, &metrics);
        assert_eq!(metrics.access_log_dropped.get(), 101);
    }

    #[test]
    fn a_worker_does_not_wait_for_a_writer_that_is_behind() {
        let (sender, lines) = sync_channel(1);
        let metrics = Arc::new(Metrics::default());
        let log = super::super::Log::new(true, sender, metrics.clone());
        let entry = super::super::Entry::refused([192, 0, 2, 1].into(), http::HeaderValue::from_static("id"));
        for _ in 0..3 {
            log.write(&entry, http::StatusCode::OK, 0, std::time::Duration::ZERO);
            log.hand_on();
        }
        assert_eq!(metrics.access_log_dropped.get(), 2);
        assert_eq!(lines.recv().unwrap().count, 1);
    }
}
