// What Spark does: the same records, keeps and sums as ours. Each call prints one line that starts with "larder-peers ".
package larder.peers

import org.apache.spark.rdd.RDD
import org.apache.spark.sql.{Column, DataFrame, SparkSession}
import org.apache.spark.sql.functions.{col, concat, lit, sum}
import org.apache.spark.storage.StorageLevel

case class Reading(id: Long, key: Int, value: Double, name: String)

class Readings(spark: SparkSession, records: Long, partitions: Int, reads: Int) {
  private def make: RDD[Reading] = {
    // Locals: a closure that named the fields would take the session with it.
    val (records, partitions) = (this.records, this.partitions)
    spark.sparkContext.parallelize(0 until partitions, partitions).flatMap { partition =>
      def bound(partition: Int): Long = records * partition / partitions
      Iterator.range(0, (bound(partition + 1) - bound(partition)).toInt).map { offset =>
        val id = bound(partition) + offset
        Reading(id, (id % 1000).toInt, id / 2.0, "name-" + id % 100)
      }
    }
  }

  private def frame: DataFrame = {
    val id: Column = col("id")
    spark.range(0, records, 1, partitions).select(
      id, (id % 1000).cast("int").as("key"), (id / 2.0).as("value"), concat(lit("name-"), (id % 100).cast("string")).as("name"))
  }

  private def sumOf(rdd: RDD[Reading]): Double = rdd.aggregate(0.0)(_ + _.value, _ + _)

  private def sumOf(frame: DataFrame): Double = frame.agg(sum("value")).head().getDouble(0)

  private def seconds(run: => Double): (Double, Double) = {
    val started = System.nanoTime()
    val result = run
    ((System.nanoTime() - started) / 1e9, result)
  }

  private def tell(first: (Double, Double), reread: => Double): Unit = {
    val again = (1 to reads).map(_ => seconds(reread))
    val times = again.map(_._1).mkString("[", ",", "]")
    val sums = (first +: again).map(_._2).mkString("[", ",", "]")
    println(s"""larder-peers {"first_seconds":${first._1},"read_seconds":$times,"sums":$sums}""")
  }

  def rdd(level: String): Unit = {
    val stored = make.persist(StorageLevel.fromString(level))
    tell(seconds(sumOf(stored)), sumOf(stored))
    stored.unpersist(blocking = true)
  }

  def dataFrame(level: String): Unit = {
    val stored = frame.persist(StorageLevel.fromString(level))
    tell(seconds(sumOf(stored)), sumOf(stored))
    stored.unpersist(blocking = true)
  }

  def rddCheckpoint(): Unit = {
    val written = make
    written.checkpoint()
    tell(seconds(sumOf(written)), sumOf(written))
  }

  def dataFrameCheckpoint(): Unit = {
    var written: DataFrame = null
    tell(seconds { written = frame.checkpoint(eager = true); sumOf(written) }, sumOf(written))
  }
}
