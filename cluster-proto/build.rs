//! Compiles the .proto files with protox, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files =
        ["command.proto", "forward.proto", "peer.proto", "raft.proto"].map(|file| format!("proto/{file}"));
    let descriptors = protox::compile(&files, ["proto"])?;
    // Ordered maps, so that a message has one encoding: entries and snapshots are the same bytes on every node.
    tonic_prost_build::configure().bytes(".").btree_map(".").compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
