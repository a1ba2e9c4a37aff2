//! Checkpoints of datasets: one pass, whole or not at all, the lineage cut only when they are durable. One file a
//! subject.

#[cfg(test)]
mod background;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod eager;
#[cfg(test)]
mod lazy;
#[cfg(test)]
mod local;
#[cfg(test)]
mod open;
#[cfg(test)]
mod periodic;
#[cfg(test)]
mod request;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod support;
