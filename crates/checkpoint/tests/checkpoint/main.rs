//! Behaviours of checkpoints, one file a subject.

#[cfg(test)]
mod backends;
#[cfg(test)]
mod children;
#[cfg(test)]
mod cleanup;
#[cfg(test)]
mod commit;
#[cfg(test)]
mod copy;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod features;
#[cfg(test)]
#[cfg(any(feature = "s3", feature = "hdfs"))]
mod network;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod outside;
#[cfg(test)]
mod own_server;
#[cfg(test)]
mod race;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod support;
