//! Text files: every line once, wherever the byte ranges fall.

use std::error::Error as _;
use std::fs;
use std::io::Write;
use std::path::Path;

use larder_exec::{Context, Error};
use lz4_flex::frame::FrameEncoder;

type Done = Result<(), Box<dyn std::error::Error>>;

fn context() -> Result<Context, Error> {
    Context::builder().threads(2).progress(false).build()
}

#[test]
fn every_line_is_read_once_for_every_number_of_partitions() -> Done {
    let context = context()?;
    let directory = tempfile::tempdir()?;
    let texts = [
        "",
        "\n",
        "a",
        "a\n",
        "\n\n\n",
        "one\ntwo\nthree",
        "one\r\ntwo\r\n\r\nthree\r\n",
        "ä\nöü\n€uro\n𝄞",
        "a long line that spans several of the ranges it is split into\nb\n",
        "x\ry\r\n",
    ];
    for text in texts {
        let path = directory.path().join("text");
        fs::write(&path, text)?;
        let expected: Vec<&str> = text.lines().collect();
        for partitions in 1..=text.len() as u32 + 2 {
            assert_eq!(
                context.text_file(&path, partitions)?.collect()?,
                expected,
                "{text:?} in {partitions}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_line_belongs_to_the_range_of_its_first_byte() -> Done {
    let context = context()?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("text");
    fs::write(&path, "aaa\nbbb\nccc\nddd\n")?;
    let parts = context.text_file(&path, 2)?.map_partitions(|lines| [lines.collect::<Vec<_>>()]).collect()?;
    assert_eq!(parts, [["aaa", "bbb"], ["ccc", "ddd"]]);
    Ok(())
}

#[test]
fn lz4_files_are_read_whole_and_damage_is_an_error() -> Done {
    let context = context()?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("lines.lz4");
    let lines: Vec<String> = (0..50_000).map(|n| format!("line {n}")).collect();
    let mut encoder = FrameEncoder::new(Vec::new());
    encoder.write_all(lines.join("\n").as_bytes())?;
    let frame = encoder.finish()?;
    fs::write(&path, &frame)?;
    let read = context.text_file(&path, 8)?;
    assert_eq!(read.partitions(), 1);
    assert_eq!(read.collect()?, lines);

    // Frames one after the other are one text.
    let mut second = FrameEncoder::new(Vec::new());
    second.write_all(b"\nlast")?;
    fs::write(&path, [frame.clone(), second.finish()?].concat())?;
    assert_eq!(context.text_file(&path, 1)?.count()?, 50_001);

    // 4 bytes: the end mark of the frame, so that it seems to end between two blocks.
    for cut in [1, 4, 5, 100, frame.len() / 2, frame.len()] {
        fs::write(&path, &frame[..frame.len() - cut])?;
        let message = context.text_file(&path, 1)?.count().map_err(|e| e.to_string());
        assert!(message.is_err_and(|m| m.contains("lines.lz4")), "cut by {cut}");
    }
    fs::write(&path, b"no frame at all")?;
    assert!(context.text_file(&path, 1)?.count().is_err());
    Ok(())
}

#[test]
fn bad_files_are_named() -> Done {
    let context = context()?;
    let directory = tempfile::tempdir()?;
    let missing = context.text_file(directory.path().join("missing.txt"), 1).map_err(|e| e.to_string());
    assert!(missing.is_err_and(|m| m.contains("missing.txt") && m.contains("open")));
    assert!(context.text_file(directory.path(), 1).is_err());
    let path = directory.path().join("latin");
    fs::write(&path, b"fine\n\xe4\xf6\n")?;
    let message = context.text_file(&path, 1)?.count().map_err(|e| e.to_string());
    assert!(message.is_err_and(|m| m.contains("latin: the line at byte 5 is not valid UTF-8")));
    Ok(())
}

#[test]
fn tab_separated_values_and_generated_records() -> Done {
    let context = context()?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("table.tsv");
    fs::write(&path, "a\tb\n\tc\t\n")?;
    assert_eq!(context.tsv_file(&path, 1)?.collect()?, [vec!["a", "b"], vec!["", "c", ""]]);
    let generated = context.generate(3, |partition| (0..partition).map(move |n| (partition, n)))?;
    assert_eq!(generated.collect()?, [(1, 0), (2, 0), (2, 1)]);
    Ok(())
}

#[test]
fn what_is_no_regular_file_or_hides_its_length_is_refused() -> Done {
    let context = context()?;
    let directory = tempfile::tempdir()?;
    let refused = |path: &Path| {
        let message = context.text_file(path, 2).map(drop).map_err(|e| format!("{e}: {:?}", e.source()));
        let named = path.display().to_string();
        assert!(message.as_ref().is_err_and(|m| m.contains(&named) && m.contains("copy")), "{message:?}");
    };
    let fifo = directory.path().join("fifo");
    if std::process::Command::new("mkfifo").arg(&fifo).status().is_ok_and(|status| status.success()) {
        refused(&fifo);
        let compressed = directory.path().join("fifo.lz4");
        fs::rename(&fifo, &compressed)?;
        refused(&compressed);
    }
    for special in ["/dev/null", "/proc/self/status"] {
        if Path::new(special).exists() {
            refused(Path::new(special));
        }
    }
    let empty = directory.path().join("empty");
    fs::write(&empty, "")?;
    assert_eq!(context.text_file(&empty, 2)?.count()?, 0);
    #[cfg(unix)]
    {
        fs::write(directory.path().join("lines"), "a\nb\n")?;
        std::os::unix::fs::symlink("lines", directory.path().join("link"))?;
        assert_eq!(context.text_file(directory.path().join("link"), 2)?.count()?, 2);
    }
    Ok(())
}
