//! A descriptor that comes along with a request: how a `run` hands its listener to an agent that is not its child.
//!
//! The kernel delivers descriptors with the bytes they were sent with, and drops them when those are read in the usual way. So
//! connections of the agent's own user are read through [`Receiving`], which keeps the last one for whoever handles the request.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

/// The descriptor that came last over a connection. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Handed(Arc<Mutex<Option<OwnedFd>>>);

impl Handed {
    /// Takes it.
    #[must_use]
    pub fn take(&self) -> Option<OwnedFd> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, descriptor: OwnedFd) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(descriptor);
    }
}

/// A connection over which a descriptor may come, with its first bytes: nobody sends one later, and to look for it costs more than
/// a plain read.
#[derive(Debug)]
pub struct Receiving {
    stream: UnixStream,
    handed: Handed,
    has_begun: bool,
}

impl Receiving {
    /// Keeps what comes over `stream` in `handed`.
    #[must_use]
    pub fn new(stream: UnixStream, handed: Handed) -> Self {
        Self {
            stream,
            handed,
            has_begun: false,
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // Room for one: the kernel closes any others.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let mut pieces = [IoSliceMut::new(buffer)];
        let received = recvmsg(&self.stream, &mut pieces, &mut ancillary, flags)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                descriptors.for_each(|descriptor| self.handed.put(descriptor));
            }
        }
        Ok(received.bytes)
    }
}

impl AsyncRead for Receiving {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.has_begun {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            let room = buffer.initialize_unfilled();
            match self
                .stream
                .try_io(Interest::READABLE, || self.receive(room))
            {
                Ok(count) => {
                    buffer.advance(count);
                    self.has_begun = true;
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Receiving {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd as _;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixStream;

    use super::{Handed, Receiving};

    #[tokio::test]
    async fn a_descriptor_comes_with_its_bytes_and_more_than_one_are_not_kept() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"mine").unwrap();
        for count in [1, 3] {
            let (near, far) = UnixStream::pair().unwrap();
            let handed = Handed::default();
            let mut receiving = Receiving::new(near, handed.clone());
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let descriptors = vec![file.as_fd(); count];
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
            let bytes = [std::io::IoSlice::new(b"hello")];
            sendmsg(&far, &bytes, &mut ancillary, SendFlags::empty()).unwrap();
            let mut text = [0; 5];
            receiving.read_exact(&mut text).await.unwrap();
            assert_eq!(&text, b"hello");
            let mut copy = File::from(handed.take().unwrap());
            copy.seek(SeekFrom::Start(0)).unwrap();
            let mut content = String::new();
            copy.read_to_string(&mut content).unwrap();
            assert_eq!(content, "mine");
            assert!(handed.take().is_none());
            // Later on the bytes alone are read.
            far.try_write(b"more").unwrap();
            let mut text = [0; 4];
            receiving.read_exact(&mut text).await.unwrap();
            assert_eq!(&text, b"more");
            drop(far);
            assert_eq!(receiving.read(&mut [0; 5]).await.unwrap(), 0);
        }
    }
}
