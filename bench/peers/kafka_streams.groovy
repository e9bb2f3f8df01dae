// The topologies of the Kafka Streams contender: TASK.json OUTPUT_TOPIC APPLICATION_ID GRACE_MS.
//
// Prints "read N" as it goes on and "dropped N" beside it; a row is tab-separated text, its key too.

import com.fasterxml.jackson.databind.ObjectMapper
import groovy.transform.CompileStatic
import java.nio.ByteBuffer
import java.time.Duration
import org.apache.avro.Schema
import org.apache.avro.generic.GenericData
import org.apache.avro.generic.GenericDatumReader
import org.apache.avro.generic.GenericRecord
import org.apache.avro.io.BinaryDecoder
import org.apache.avro.io.DecoderFactory
import org.apache.kafka.common.serialization.Deserializer
import org.apache.kafka.common.serialization.Serde
import org.apache.kafka.common.serialization.Serdes
import org.apache.kafka.common.serialization.Serializer
import org.apache.kafka.common.utils.Bytes
import org.apache.kafka.streams.KafkaStreams
import org.apache.kafka.streams.KeyValue
import org.apache.kafka.streams.StreamsBuilder
import org.apache.kafka.streams.StreamsConfig
import org.apache.kafka.streams.kstream.Consumed
import org.apache.kafka.streams.kstream.Grouped
import org.apache.kafka.streams.kstream.JoinWindows
import org.apache.kafka.streams.kstream.KStream
import org.apache.kafka.streams.kstream.Materialized
import org.apache.kafka.streams.kstream.Produced
import org.apache.kafka.streams.kstream.SessionWindows
import org.apache.kafka.streams.kstream.StreamJoined
import org.apache.kafka.streams.kstream.TimeWindows
import org.apache.kafka.streams.kstream.Windowed
import org.apache.kafka.streams.processor.api.ContextualProcessor
import org.apache.kafka.streams.processor.api.ProcessorContext
import org.apache.kafka.streams.processor.api.ProcessorSupplier
import org.apache.kafka.streams.processor.api.Record
import org.apache.kafka.streams.state.KeyValueStore
import org.apache.kafka.streams.state.SessionStore
import org.apache.kafka.streams.state.StoreBuilder
import org.apache.kafka.streams.state.Stores
import org.apache.kafka.streams.state.WindowStore

/** A value is five bytes of framing, then Avro; only the fields in use are decoded. */
@CompileStatic
class Events implements Deserializer<GenericRecord> {
    private final GenericDatumReader<GenericRecord> reader
    // All threads of the topology share this object.
    private final ThreadLocal<BinaryDecoder> decoders = new ThreadLocal<>()

    Events(Map source, List<String> names) {
        Map wanted = new LinkedHashMap((Map) source.schema)
        wanted.fields = ((List<Map>) wanted.fields).findAll { it.name in names }
        reader = new GenericDatumReader<>(parsed((Map) source.schema), parsed(wanted))
    }

    private static Schema parsed(Map schema) {
        Schema found = new Schema.Parser().parse(new ObjectMapper().writeValueAsString(schema))
        found.fields*.schema().each { Schema field ->
            if (field.type == Schema.Type.STRING) {
                GenericData.setStringType(field, GenericData.StringType.String)
            }
        }
        found
    }

    GenericRecord deserialize(String topic, byte[] value) {
        BinaryDecoder decoder =
            DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, decoders.get())
        decoders.set(decoder)
        reader.read(null, decoder)
    }
}

/** Judges each payment by the user's last twenty, four numbers each, and remembers it. */
@CompileStatic
class Judge extends ContextualProcessor<String, GenericRecord, String, String> {
    static final String STORE = 'histories'
    private static final int REMEMBERED = 20, NUMBERS = 4
    private KeyValueStore<String, long[]> histories

    void init(ProcessorContext<String, String> context) {
        super.init(context)
        histories = context.getStateStore(STORE)
    }

    void process(Record<String, GenericRecord> record) {
        GenericRecord payment = record.value()
        long[] history = histories.get(record.key()) ?: new long[0]
        long at = (Long) payment.get('event_time'), cents = (Long) payment.get('amount_cents')
        double north = (Double) payment.get('latitude'), east = (Double) payment.get('longitude')
        String reasons = judged(history, at, cents, north, east)
        if (reasons != null) {
            context().forward(new Record<>(payment.get('event_id').toString(),
                "${record.key()}\t$at\t$cents\t$reasons".toString(), record.timestamp()))
        }
        int kept = Math.min(history.length, NUMBERS * (REMEMBERED - 1))
        long[] now = Arrays.copyOfRange(history, history.length - kept, history.length + NUMBERS)
        now[kept] = at
        now[kept + 1] = cents
        now[kept + 2] = Double.doubleToRawLongBits(north)
        now[kept + 3] = Double.doubleToRawLongBits(east)
        histories.put(record.key(), now)
    }

    private static String judged(long[] history, long at, long cents, double north, double east) {
        int known = history.length.intdiv(NUMBERS), last = history.length - NUMBERS
        long spent = 0
        for (int i = 1; i < history.length; i += NUMBERS) { spent += history[i] }
        if (known == 0 || cents * known <= 5 * spent || at - history[last] > 3_600_000L ||
            kilometres(Double.longBitsToDouble(history[last + 2]),
                Double.longBitsToDouble(history[last + 3]), north, east) <= 1000d) {
            return null
        }
        boolean often = known >= 4 && at - history[history.length - 4 * NUMBERS] <= 300_000L
        often ? 'amount, distance, frequency' : 'amount, distance'
    }

    private static double kilometres(double north1, double east1, double north2, double east2) {
        double n1 = Math.toRadians(north1), n2 = Math.toRadians(north2)
        double up = Math.sin((n2 - n1) / 2d), across = Math.sin(Math.toRadians(east2 - east1) / 2d)
        2d * 6371d * Math.asin(Math.sqrt(up * up + Math.cos(n1) * Math.cos(n2) * across * across))
    }
}

@CompileStatic
class Topologies {
    final Map task
    final String output
    final Duration grace
    final StreamsBuilder builder = new StreamsBuilder()
    static final Duration MINUTE = Duration.ofMinutes(1)

    Topologies(Map task, String output, long graceMs) {
        this.task = task
        this.output = output
        this.grace = Duration.ofMillis(graceMs)
    }

    void build() {
        switch (task.question) {
            case 'W2': uniques(); break
            case 'W4': sessions(); break
            case 'W5': payments(); break
            case 'W6': thefts(); break
            default: windows()
        }
    }

    private void windows() {
        KStream<String, long[]> pages = source(0, ['page_id', 'duration_ms'])
            .map { String user, GenericRecord view -> new KeyValue<>(page(view), measures(view)) }
        pages.groupByKey(Grouped.with(Serdes.String(), numbers()))
            .windowedBy(timeWindows())
            .aggregate({ new long[3] }, { String page, long[] one, long[] all -> plus(one, all) },
                Materialized.<String, long[], WindowStore<Bytes, byte[]>>with(Serdes.String(), numbers()))
            .toStream()
            .map { Windowed<String> page, long[] all ->
                new KeyValue<>("${page.window().start()}\t${page.key()}".toString(), row(all))
            }
            .to(output, Produced.with(Serdes.String(), Serdes.String()))
    }

    /** First for each visitor, so that no state is a set that is rewritten for each event. */
    private void uniques() {
        KStream<String, long[]> visitors = source(0, ['page_id', 'user_id', 'duration_ms'])
            .map { String user, GenericRecord view ->
                new KeyValue<>("${page(view)}\t${view.get('user_id')}".toString(), measures(view))
            }
        visitors.groupByKey(Grouped.with(Serdes.String(), numbers()))
            .windowedBy(timeWindows())
            .aggregate({ new long[3] }, { String page, long[] one, long[] all -> plus(one, all) },
                Materialized.<String, long[], WindowStore<Bytes, byte[]>>with(Serdes.String(), numbers()))
            .groupBy({ Windowed<String> visitor, long[] all ->
                String page = visitor.key().substring(0, visitor.key().indexOf('\t'))
                new KeyValue<>("${visitor.window().start()}\t$page".toString(), withOne(all))
            }, Grouped.with(Serdes.String(), numbers()))
            .aggregate({ new long[4] }, { String page, long[] one, long[] all -> plus(one, all) },
                { String page, long[] one, long[] all -> minus(one, all) },
                Materialized.<String, long[], KeyValueStore<Bytes, byte[]>>with(Serdes.String(), numbers()))
            .toStream()
            .mapValues { long[] all -> row(all) + '\t' + all[3] }
            .to(output, Produced.with(Serdes.String(), Serdes.String()))
    }

    private void sessions() {
        source(0, ['event_time'])
            .mapValues { GenericRecord view -> new long[] {1} }
            .groupByKey(Grouped.with(Serdes.String(), numbers()))
            .windowedBy(SessionWindows.ofInactivityGapAndGrace(MINUTE.multipliedBy(30), grace))
            .aggregate({ new long[1] }, { String user, long[] one, long[] all -> plus(one, all) },
                { String user, long[] left, long[] right -> plus(left, right) },
                Materialized.<String, long[], SessionStore<Bytes, byte[]>>with(Serdes.String(), numbers()))
            .toStream()
            .map { Windowed<String> user, long[] all ->
                long start = user.window().start(), end = user.window().end()
                new KeyValue<>("${user.key()}\t$start\t$end".toString(),
                    all == null ? null : "${all[0]}\t${end - start}".toString())
            }
            .to(output, Produced.with(Serdes.String(), Serdes.String()))
    }

    private void payments() {
        KStream<String, String> orders = source(0, ['event_time', 'status'])
            .filter { String order, GenericRecord event -> event.get('status') == 'placed' }
            .mapValues { GenericRecord event -> event.get('event_time').toString() }
        KStream<String, String> paid = source(1, ['event_time', 'payment_id', 'paid_cents'])
            .mapValues { GenericRecord event ->
                "${event.get('payment_id')}\t${event.get('event_time')}\t${event.get('paid_cents')}".toString()
            }
        orders.join(paid,
            { String order, String at, String payment -> "$order\t$at\t$payment".toString() },
            JoinWindows.ofTimeDifferenceAndGrace(MINUTE, grace),
            StreamJoined.with(Serdes.String(), Serdes.String(), Serdes.String()))
            .map { String order, String both ->
                String[] cells = both.split('\t')
                new KeyValue<>(cells[2], [cells[0], cells[1], cells[3], cells[4]].join('\t'))
            }
            .to(output, Produced.with(Serdes.String(), Serdes.String()))
    }

    private void thefts() {
        StoreBuilder<KeyValueStore<String, long[]>> histories = Stores.keyValueStoreBuilder(
            Stores.persistentKeyValueStore(Judge.STORE), Serdes.String(), numbers())
        builder.addStateStore(histories.withCachingEnabled())
        ProcessorSupplier<String, GenericRecord, String, String> judge = {
            new Judge()
        } as ProcessorSupplier<String, GenericRecord, String, String>
        source(0, ['event_id', 'event_time', 'amount_cents', 'latitude', 'longitude'])
            .process(judge, Judge.STORE)
            .to(output, Produced.with(Serdes.String(), Serdes.String()))
    }

    private KStream<String, GenericRecord> source(int place, List<String> names) {
        Map source = ((List<Map>) task.sources)[place]
        Serializer<GenericRecord> none = { String topic, GenericRecord event ->
            throw new UnsupportedOperationException()
        } as Serializer<GenericRecord>
        Serde<GenericRecord> events = Serdes.serdeFrom(none, new Events(source, names))
        builder.stream((String) source.topic, Consumed.with(Serdes.String(), events))
    }

    private TimeWindows timeWindows() {
        TimeWindows.ofSizeAndGrace(Duration.ofMillis(((Number) task.size_ms).longValue()), grace)
            .advanceBy(Duration.ofMillis(((Number) task.slide_ms).longValue()))
    }

    private static String page(GenericRecord view) { view.get('page_id').toString() }

    private static long[] measures(GenericRecord view) {
        Long duration = (Long) view.get('duration_ms')
        duration == null ? new long[] {1, 0, 0} : new long[] {1, duration, 1}
    }

    private static long[] withOne(long[] all) { new long[] {all[0], all[1], all[2], 1} }

    private static long[] plus(long[] one, long[] all) {
        long[] sum = new long[all.length]
        for (int i = 0; i < sum.length; i++) { sum[i] = all[i] + one[i] }
        sum
    }

    private static long[] minus(long[] one, long[] all) {
        long[] rest = new long[all.length]
        for (int i = 0; i < rest.length; i++) { rest[i] = all[i] - one[i] }
        rest
    }

    /** Views and time; time is nothing where none was measured. */
    private static String row(long[] all) { "${all[0]}\t${all[2] == 0 ? '' : all[1]}".toString() }

    private static Serde<long[]> numbers() {
        Serializer<long[]> writing = { String topic, long[] all ->
            if (all == null) { return null }
            ByteBuffer bytes = ByteBuffer.allocate(8 * all.length)
            bytes.asLongBuffer().put(all)
            bytes.array()
        } as Serializer<long[]>
        Deserializer<long[]> reading = { String topic, byte[] bytes ->
            if (bytes == null) { return null }
            long[] all = new long[bytes.length.intdiv(8)]
            ByteBuffer.wrap(bytes).asLongBuffer().get(all)
            all
        } as Deserializer<long[]>
        Serdes.serdeFrom(writing, reading)
    }
}

@CompileStatic
class Run {
    static Properties settings(Map task, String application) {
        Map<String, Object> all = [
            (StreamsConfig.APPLICATION_ID_CONFIG)           : application,
            (StreamsConfig.BOOTSTRAP_SERVERS_CONFIG)        : task.bootstrap,
            (StreamsConfig.STATE_DIR_CONFIG)                : "${task.folder}/state".toString(),
            (StreamsConfig.PROCESSING_GUARANTEE_CONFIG)     : StreamsConfig.EXACTLY_ONCE_V2,
            (StreamsConfig.NUM_STREAM_THREADS_CONFIG)       : 2,
            (StreamsConfig.REPLICATION_FACTOR_CONFIG)       : 1,
            (StreamsConfig.TOPOLOGY_OPTIMIZATION_CONFIG)    : StreamsConfig.OPTIMIZE,
            (StreamsConfig.COMMIT_INTERVAL_MS_CONFIG)       : 5000,
            (StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG): 512L << 20,
            (StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG): 10000,
            // Two topics are read side by side: neither runs ahead of the other.
            (StreamsConfig.MAX_TASK_IDLE_MS_CONFIG)         : 1000L,
            'auto.offset.reset'                             : 'earliest',
            'max.poll.records'                              : 10000,
            'max.partition.fetch.bytes'                     : 4 << 20,
            // A fetch that finds nothing committed in the topics between holds up all others.
            'fetch.max.wait.ms'                             : 10,
            'producer.compression.type'                     : 'lz4',
            'producer.linger.ms'                            : 100,
            'producer.batch.size'                           : 512 << 10,
            'producer.transaction.timeout.ms'               : 120000,
        ]
        Properties properties = new Properties()
        properties.putAll(all)
        properties
    }

    static long total(KafkaStreams streams, String name, Closure<Boolean> counts) {
        double sum = 0
        streams.metrics().each { metric, value ->
            if (metric.name() == name && counts(metric.tags().get('topic'))) {
                sum += ((Number) value.metricValue()).doubleValue()
            }
        }
        (long) sum
    }

    /** An event counts as read once it is read under its new key too, where it gets one. */
    static long read(KafkaStreams streams, Set<String> topics, boolean rekeyed) {
        long first = total(streams, 'records-consumed-total') { String topic -> topic in topics }
        rekeyed ? Math.min(first, total(streams, 'records-consumed-total') { String topic ->
            topic?.contains('KSTREAM-AGGREGATE')
        }) : first
    }

    static void main(String... arguments) {
        Map task = new ObjectMapper().readValue(new File(arguments[0]), Map)
        Topologies topologies = new Topologies(task, arguments[1], Long.parseLong(arguments[3]))
        topologies.build()
        Properties settings = settings(task, arguments[2])
        KafkaStreams streams = new KafkaStreams(topologies.builder.build(settings), settings)
        Set<String> topics = ((List<Map>) task.sources)*.topic.toSet() as Set<String>
        streams.start()
        // Whoever started this ends it, once it has seen every row.
        while (true) {
            println "read ${read(streams, topics, task.question in ['W1', 'W2', 'W3'])}"
            println "dropped ${total(streams, 'dropped-records-total') { true }}"
            Thread.sleep(300)
        }
    }
}

Run.main(args)
