"""Plain names of the 1,000 ImageNet (ILSVRC 2012) classes, in the classifier's order.

Animals go by their kind ("dog" for all breeds): what a shopper would say of a product photo.
"""

# (first class, last class, name) for the living things, inclusive.
_KINDS = (
    *(
        (0, 6, "fish"),
        (7, 8, "chicken"),
        (9, 9, "ostrich"),
        (10, 24, "bird"),
        (25, 29, "salamander"),
    ),
    *((30, 32, "frog"), (33, 37, "turtle"), (38, 48, "lizard"), (49, 50, "crocodile")),
    *((51, 51, "dinosaur"), (52, 68, "snake"), (69, 69, "trilobite"), (70, 78, "spider")),
    *((79, 79, "centipede"), (80, 100, "bird"), (101, 101, "elephant"), (102, 103, "platypus")),
    *((104, 104, "kangaroo"), (105, 105, "koala"), (106, 106, "wombat"), (107, 107, "jellyfish")),
    *((108, 109, "coral"), (110, 111, "worm"), (112, 117, "shell"), (118, 121, "crab")),
    *((122, 124, "lobster"), (125, 125, "crab"), (126, 126, "insect"), (127, 144, "bird")),
    *((145, 145, "penguin"), (146, 146, "bird"), (147, 148, "whale"), (149, 150, "seal")),
    *((151, 268, "dog"), (269, 272, "wolf"), (273, 275, "wild dog"), (276, 276, "hyena")),
    *((277, 280, "fox"), (281, 287, "cat"), (288, 290, "leopard"), (291, 291, "lion")),
    *((292, 292, "tiger"), (293, 293, "cheetah"), (294, 297, "bear"), (298, 299, "mongoose")),
    *((300, 307, "beetle"), (308, 308, "fly"), (309, 309, "bee"), (310, 320, "insect")),
    *((321, 326, "butterfly"), (327, 329, "starfish"), (330, 332, "rabbit"), (333, 338, "rodent")),
    *((339, 340, "horse"), (341, 343, "pig"), (344, 344, "hippopotamus"), (345, 347, "ox")),
    *((348, 350, "sheep"), (351, 353, "antelope"), (354, 355, "camel"), (356, 362, "weasel")),
    *((363, 363, "armadillo"), (364, 364, "sloth"), (365, 384, "monkey"), (385, 386, "elephant")),
    *((387, 388, "panda"), (389, 397, "fish")),
)
# Classes 398 to 999.
_THINGS = """
abacus, abaya, academic gown, accordion, acoustic guitar, aircraft carrier, airliner, airship,
altar, ambulance, amphibious vehicle, analog clock, apiary, apron, trash can, rifle, backpack,
bakery, balance beam, balloon, ballpoint pen, band-aid, banjo, baluster, barbell, barber chair,
barbershop, barn, barometer, barrel, wheelbarrow, baseball, basketball, bassinet, bassoon,
swimming cap, bath towel, bathtub, station wagon, lighthouse, beaker, military hat, beer bottle,
beer glass, bell tower, bib, tandem bicycle, bikini, ring binder, binoculars, birdhouse,
boathouse, bobsled, bolo tie, bonnet, bookcase, bookstore, bottle cap, bow, bow tie, brass plaque,
bra, breakwater, breastplate, broom, bucket, buckle, bulletproof vest, high-speed train, butcher
shop, taxi, cauldron, candle, cannon, canoe, can opener, cardigan, car mirror, carousel, tool kit,
carton, car wheel, cash machine, cassette, cassette player, castle, catamaran, CD player, cello,
mobile phone, chain, chain-link fence, chain mail, chainsaw, chest, chiffonier, chime, china
cabinet, Christmas stocking, church, movie theater, cleaver, cliff dwelling, cloak, clogs,
cocktail shaker, coffee mug, coffeemaker, coil, combination lock, computer keyboard, candy store,
container ship, convertible, corkscrew, cornet, cowboy boot, cowboy hat, cradle, crane, crash
helmet, crate, crib, slow cooker, croquet ball, crutch, cuirass, dam, desk, desktop computer, dial
telephone, diaper, digital clock, digital watch, dining table, dishcloth, dishwasher, disc brake,
dock, dog sled, dome, doormat, drilling rig, drum, drumstick, dumbbell, Dutch oven, electric fan,
electric guitar, electric locomotive, entertainment center, envelope, espresso machine, face
powder, feather boa, filing cabinet, fireboat, fire truck, fire screen, flagpole, flute, folding
chair, football helmet, forklift, fountain, fountain pen, four-poster bed, freight car, French
horn, frying pan, fur coat, garbage truck, gas mask, gas pump, goblet, go-kart, golf ball, golf
cart, gondola, gong, gown, grand piano, greenhouse, grille, grocery store, guillotine, hair clip,
hair spray, half-track, hammer, hamper, hair dryer, hand-held computer, handkerchief, hard disc,
harmonica, harp, harvester, hatchet, holster, home theater, honeycomb, hook, hoop skirt,
horizontal bar, horse cart, hourglass, iPod, clothes iron, carved pumpkin, jeans, jeep, T-shirt,
jigsaw puzzle, rickshaw, joystick, kimono, knee pad, knot, lab coat, ladle, lampshade, laptop,
lawn mower, lens cap, paper knife, library, lifeboat, lighter, limousine, ocean liner, lipstick,
slip-on shoe, lotion, loudspeaker, magnifying glass, sawmill, compass, mailbag, mailbox, maillot,
swimsuit, manhole cover, maraca, marimba, mask, matchstick, maypole, maze, measuring cup, medicine
chest, megalith, microphone, microwave, military uniform, milk can, minibus, miniskirt, minivan,
missile, mitten, mixing bowl, mobile home, Model T, modem, monastery, monitor, moped, mortar,
graduation cap, mosque, mosquito net, scooter, mountain bike, tent, computer mouse, mousetrap,
moving van, muzzle, nail, neck brace, necklace, baby bottle, notebook computer, obelisk, oboe,
ocarina, odometer, oil filter, organ, oscilloscope, overskirt, oxcart, oxygen mask, packet,
paddle, paddle wheel, padlock, paintbrush, pajamas, palace, panpipe, paper towel, parachute,
parallel bars, park bench, parking meter, passenger car, patio, pay phone, pedestal, pencil box,
pencil sharpener, perfume, petri dish, photocopier, guitar pick, spiked helmet, picket fence,
pickup truck, pier, piggy bank, pill bottle, pillow, ping-pong ball, pinwheel, pirate ship,
pitcher, plane, planetarium, plastic bag, plate rack, plow, plunger, Polaroid camera, pole, police
van, poncho, pool table, soda bottle, plant pot, potter's wheel, power drill, prayer rug, printer,
prison, projectile, projector, hockey puck, punching bag, purse, quill, quilt, race car, racket,
radiator, radio, radio telescope, rain barrel, camper, fishing reel, reflex camera, refrigerator,
remote control, restaurant, revolver, rifle, rocking chair, rotisserie, eraser, rugby ball, ruler,
running shoe, safe, safety pin, salt shaker, sandal, sarong, saxophone, scabbard, scale, school
bus, schooner, scoreboard, screen, screw, screwdriver, seat belt, sewing machine, shield, shoe
shop, shoji, shopping basket, shopping cart, shovel, shower cap, shower curtain, ski, ski mask,
sleeping bag, slide rule, sliding door, slot machine, snorkel, snowmobile, snowplow, soap
dispenser, soccer ball, sock, solar dish, sombrero, soup bowl, space bar, space heater, space
shuttle, spatula, speedboat, spider web, spindle, sports car, spotlight, stage, steam locomotive,
arch bridge, steel drum, stethoscope, stole, stone wall, stopwatch, stove, strainer, tram,
stretcher, sofa, stupa, submarine, suit, sundial, sunglasses, sunglasses, sunscreen, suspension
bridge, mop, sweatshirt, swim trunks, swing, switch, syringe, table lamp, tank, tape player,
teapot, teddy bear, television, tennis ball, thatch, theater curtain, thimble, threshing machine,
throne, roof, toaster, tobacco shop, toilet seat, torch, totem pole, tow truck, toy shop, tractor,
trailer truck, tray, trench coat, tricycle, trimaran, tripod, triumphal arch, trolleybus,
trombone, tub, turnstile, typewriter keyboard, umbrella, unicycle, upright piano, vacuum cleaner,
vase, vault, velvet, vending machine, vestment, viaduct, violin, volleyball, waffle iron, wall
clock, wallet, wardrobe, military plane, washbasin, washing machine, water bottle, water jug,
water tower, whiskey jug, whistle, wig, window screen, window shade, Windsor tie, wine bottle,
wing, wok, wooden spoon, wool, rail fence, shipwreck, yawl, yurt, website, comic book, crossword
puzzle, street sign, traffic light, book jacket, menu, plate, guacamole, consomme, hot pot,
trifle, ice cream, ice pop, baguette, bagel, pretzel, cheeseburger, hot dog, mashed potato,
cabbage, broccoli, cauliflower, zucchini, spaghetti squash, acorn squash, butternut squash,
cucumber, artichoke, bell pepper, cardoon, mushroom, green apple, strawberry, orange, lemon, fig,
pineapple, banana, jackfruit, custard apple, pomegranate, hay, carbonara, chocolate sauce, dough,
meat loaf, pizza, pot pie, burrito, red wine, espresso, cup, eggnog, mountain, bubble, cliff,
coral reef, geyser, lakeside, headland, sandbar, seashore, valley, volcano, baseball player,
groom, scuba diver, rapeseed, daisy, orchid, corn, acorn, rose hip, chestnut, mushroom, mushroom,
mushroom, mushroom, mushroom, mushroom, mushroom, corn, toilet paper
"""

NAMES: tuple[str, ...] = (
    *(name for first, last, name in _KINDS for _ in range(first, last + 1)),
    *(name.strip() for name in _THINGS.replace("\n", " ").split(",")),
)
