use super::*;

/// What a client writes, for tests of those who read it.
#[derive(Default)]
pub struct Client {
    packed: Option<flate2::Compress>,
}

impl Client {
    /// The beginning of a stream.
    pub fn open(&mut self, stream: u32, headers: &[(&str, &str)], end: bool) -> Bytes {
        let mut plain = BytesMut::new();
        plain.put_u32(u32::try_from(headers.len()).unwrap());
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(u32::try_from(text.len()).unwrap());
            plain.extend_from_slice(text.as_bytes());
        }
        let compress = self.packed.get_or_insert_with(|| {
            let mut compress = flate2::Compress::new(flate2::Compression::best(), true);
            compress.set_dictionary(&headers::dictionary()).unwrap();
            compress
        });
        let mut packed = Vec::with_capacity(4096);
        compress.compress_vec(&plain, &mut packed, flate2::FlushCompress::Sync).unwrap();
        let mut body = BytesMut::new();
        body.put_u32(stream);
        body.put_u32(0);
        body.put_u16(0);
        body.extend_from_slice(&packed);
        let mut frame = BytesMut::from(&control_frame(SYN_STREAM, &body)[..]);
        frame[4] = if end { FIN } else { 0 };
        frame.freeze()
    }
}

fn all(codec: &mut Codec) -> Vec<Frame> {
    std::iter::from_fn(|| codec.next_frame().unwrap()).collect()
}

#[test]
fn the_dictionary_is_the_one_of_the_draft() {
    let adler = headers::dictionary().iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (a + b) % 65_521)
    });
    assert_eq!(headers::dictionary().len(), 1423);
    assert_eq!(adler.1 << 16 | adler.0, 0xe3c6_a7c2);
}

#[test]
fn frames_are_read_however_they_are_cut() {
    let mut client = Client::default();
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&client.open(1, &[("streamtype", "error"), ("port", "5432"), ("requestid", "0")], true));
    bytes.extend_from_slice(&client.open(3, &[("streamtype", "data"), ("port", "5432"), ("requestid", "0")], false));
    bytes.extend_from_slice(&data(3, b"hello", false));
    bytes.extend_from_slice(&pong(7));
    bytes.extend_from_slice(&control_frame(4, &[0; 12]));
    bytes.extend_from_slice(&data(3, b"", true));
    bytes.extend_from_slice(&reset(3, 5));
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let headers = |kind: &str| vec![header("streamtype", kind), header("port", "5432"), header("requestid", "0")];
    let wanted = || {
        vec![
            Frame::Open { stream: 1, headers: headers("error"), end: true },
            Frame::Open { stream: 3, headers: headers("data"), end: false },
            Frame::Data { stream: 3, bytes: Bytes::from("hello"), end: false },
            Frame::Ping(7),
            Frame::Data { stream: 3, bytes: Bytes::new(), end: true },
            Frame::Reset(3),
        ]
    };
    for size in [1, 7, 4096] {
        let (mut codec, mut found) = (Codec::default(), Vec::new());
        for piece in bytes.chunks(size) {
            codec.push(piece);
            found.extend(all(&mut codec));
        }
        assert_eq!(found, wanted(), "in pieces of {size}");
    }
}

#[test]
fn what_is_no_spdy_or_too_long_is_an_error() {
    for wrong in [&[0x80, 2, 0, 1, 0, 0, 0, 0][..], &[0, 0, 0, 1, 0, 0xff, 0xff, 0xff], &[0x80, 3, 0, 3, 0, 0, 0, 1, 0]]
    {
        let mut codec = Codec::default();
        codec.push(wrong);
        assert!(codec.next_frame().is_err(), "{wrong:?}");
    }
    let mut codec = Codec::default();
    let long = "x".repeat(17 << 10);
    codec.push(&Client::default().open(1, &[("name", &long)], false));
    assert!(matches!(codec.next_frame(), Err(SpdyError::Headers(HeaderError::TooLong))));
    let mut codec = Codec::default();
    codec.push(&[0x80, 3, 0, 1, 0, 0, 0, 14, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
    assert!(matches!(codec.next_frame(), Err(SpdyError::Headers(_))));
}

#[test]
fn answers_are_one_stream_of_packed_headers() {
    let mut codec = Codec::default();
    let (mut unpack, mut plain) = (flate2::Decompress::new(true), Vec::with_capacity(64));
    for stream in [1, 3, 5] {
        let reply = codec.reply(stream).unwrap();
        assert_eq!((&reply[..4], &reply[8..12]), (&[0x80, 3, 0, 2][..], &u32::to_be_bytes(stream)[..]));
        let body = &reply[12..];
        let began = unpack.total_in();
        if unpack.decompress_vec(body, &mut plain, flate2::FlushDecompress::Sync).is_err() {
            unpack.set_dictionary(&headers::dictionary()).unwrap();
            let taken = usize::try_from(unpack.total_in() - began).unwrap();
            unpack.decompress_vec(&body[taken..], &mut plain, flate2::FlushDecompress::Sync).unwrap();
        }
    }
    assert_eq!(plain, [0; 12]);
}
