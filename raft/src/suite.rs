//! openraft's own storage tests, on this storage.

use openraft::{StorageError, testing::log::StoreBuilder};

use crate::{Storage, log::Log, state_machine::StateMachine, types::Types};

struct Builder;

impl StoreBuilder<Types, Log, StateMachine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, Log, StateMachine), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        Ok((dir, storage.log, storage.state_machine))
    }
}

#[test]
fn openraft_storage_suite() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        openraft::testing::log::Suite::test_all(Builder).await.unwrap();
    });
}
